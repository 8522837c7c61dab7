"""Pages in Prometheus' text format, and how those of several processes become one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from typing_extensions import override

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# What a process that ended still counts for: what it had now is gone with it.
_CUMULATIVE = ("counter", "histogram")


class Families(Collector):
    """Families that are already made."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    @override
    def collect(self) -> Iterable[Metric]:
        return self._families


def page_of(families: Iterable[Metric]) -> bytes:
    """Return families as a page."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families(families))
    return generate_latest(registry)


def merged(pages: Sequence[bytes], ended: bytes = b"") -> bytes:
    """Return the page of all processes of a server.

    Counters and histograms are added up, and gauges that count. Of ages, and of what every process tells of itself, the
    largest stands.

    Parameters:
        pages: those of processes that live.
        ended: what `cumulative` kept of those that do not. Their series of versions that no other process has end.
    """
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    versions: set[str | None] = {None}
    for page in (*pages, ended):
        for family in text_string_to_metric_families(page.decode()):
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            found = values.setdefault(family.name, {})
            is_largest = family.type == "gauge" and family.name.endswith(("_info", "_seconds"))
            for sample in family.samples:
                version = sample.labels.get("version")
                if page is ended and version not in versions:
                    continue
                versions.add(version)
                key = sample.name, tuple(sorted(sample.labels.items()))
                had = found.get(key)
                found[key] = (
                    sample.value if had is None else max(had, sample.value) if is_largest else had + sample.value
                )
    for name, family in families.items():
        for (sample_name, labels), value in values[name].items():
            family.add_sample(sample_name, dict(labels), value)
    return page_of(families.values())


def cumulative(page: bytes) -> bytes:
    """Return what of a page still counts when its process has ended."""
    return page_of(each for each in text_string_to_metric_families(page.decode()) if each.type in _CUMULATIVE)
