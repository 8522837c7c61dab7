"""What a scrape tells: stages, batches, refusals, and no more series than there are versions in use."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlplatform_tests.serving.conftest import Platform
from mlplatform_tests.serving.servers import in_thread
from serving.api import build_app
from serving.local import LocalBackend
from serving.metrics import ServingMetrics
from serving.timing import VERSIONS_KEPT, StageFamilies, StageTimes

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[httpx.Client]:
    """A server of `tiny_forecast`."""
    settings = platform.serving("tiny_forecast")
    with in_thread(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        yield client


def scraped(client: httpx.Client) -> Samples:
    return parsed(client.get("/metrics").text)


def parsed(page: str) -> Samples:
    families = text_string_to_metric_families(page)
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), math.nan)


def test_every_stage_of_a_request_is_timed_under_its_version_and_arm(client: httpx.Client, platform: Platform) -> None:
    assert client.post("/predict/feast/batch", json={"entities": [1, 2]}).status_code == 200
    assert client.post("/predict", json={"rows": platform.rows()}).status_code == 200
    assert client.post("/predict", json={"rows": platform.rows(), "version": 2}).status_code == 200
    samples = scraped(client)
    production = {"experiment": "tiny_forecast", "version": "1", "arm": "production"}
    for stage, count in {"queue": 2, "features": 1, "preprocess": 2, "predict": 2, "postprocess": 2}.items():
        assert value(samples, "mlplatform_stage_seconds_count", stage=stage, **production) == count
        assert 0 <= value(samples, "mlplatform_stage_seconds_sum", stage=stage, **production) < 5
    assert value(samples, "mlplatform_batch_requests_sum", **production) == 2
    other = {**production, "version": "2", "arm": "other"}
    assert value(samples, "mlplatform_stage_seconds_count", stage="predict", **other) == 1


def test_refusals_are_counted_by_experiment_and_reason(client: httpx.Client) -> None:
    before = scraped(client)
    for body in ({"entities": [99]}, {"entities": []}):
        client.post("/predict/feast/batch", json=body)
    client.post("/v2/models/tiny_forecast/infer", json={"inputs": []})
    client.post("/admin/reload")
    after = scraped(client)
    for experiment, reason in (
        ("tiny_forecast", "unknown_entity"),
        ("tiny_forecast", "invalid_request"),
        ("", "unauthorized"),
    ):
        labels = {"experiment": experiment, "reason": reason}
        was = value(before, "mlplatform_rejections_total", **labels)
        assert value(after, "mlplatform_rejections_total", **labels) - (0 if math.isnan(was) else was) == 1
    assert value(after, "mlplatform_requests_in_flight", experiment="tiny_forecast") == 0
    assert value(after, "mlplatform_queue_depth", stage="model") == 0


def test_series_of_versions_that_are_out_of_use_end() -> None:
    times, metrics = StageTimes(), ServingMetrics({})
    for version in range(1, 21):
        for used in (1, version):
            times.observe("predict", used, 0.2)
            metrics.observe_predictions("one", "production", used, 3)
        times.observe_batch(version, 5)
    families = StageFamilies()
    times.add_to(families, "one", {20: "production"})
    found = {(each.labels["version"], each.labels["arm"]) for each in families.seconds.samples}
    assert found == {("1", "other"), ("18", "other"), ("19", "other"), ("20", "production")}
    assert len(found) == VERSIONS_KEPT
    samples = parsed(metrics.render({}, {}, {"one": times}, {}).decode())
    kept = {dict(labels)["version"]: count for (name, labels), count in samples.items() if name.endswith("ions_total")}
    assert kept == {"1": 63.0, "18": 3.0, "19": 3.0, "20": 3.0}


def test_a_stage_that_raises_is_not_timed() -> None:
    times, families = StageTimes(), StageFamilies()

    with pytest.raises(ValueError, match="broken"), times.timed("predict", 1):
        raise ValueError("broken")
    times.add_to(families, "one", {})
    assert not families.seconds.samples
