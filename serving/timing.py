"""How long the stages of predictions take, by the version that answers: counted where the work is done.

`queue` is a request's wait for the model. The others are times of one call each, which requests that are answered
together share: `features` the read of the feature store, `preprocess` the way from rows or windows to what the model
reads, `predict` the model, `postprocess` the way back to original units.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from prometheus_client.core import HistogramMetricFamily, Metric

from serving.histograms import Histogram
from serving.tracing import span

Stage = Literal["queue", "features", "preprocess", "predict", "postprocess"]

# Whoever swaps a pair every day would otherwise have as many series as days.
VERSIONS_KEPT = 4
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
# The arm of a version that no arm has now: it was asked for by its number, or was replaced.
OTHER_ARM = "other"


class StageTimes:
    """The times of one experiment; of all but its versions used last the series end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: OrderedDict[int, dict[str, Histogram]] = OrderedDict()

    def observe(self, stage: Stage, version: int, seconds: float) -> None:
        """Count one pass of a stage."""
        with self._lock:
            self._of(version).setdefault(stage, Histogram()).observe(seconds)

    def observe_batch(self, version: int, requests: int) -> None:
        """Count one batch."""
        with self._lock:
            self._of(version).setdefault("", Histogram(BATCH_SIZES)).observe(requests)

    @contextmanager
    def timed(self, stage: Stage, version: int) -> Iterator[None]:
        """Count what is done within the context, unless it raises; of a traced request it is a span."""
        began = time.perf_counter()
        with span(stage, version=version):
            yield
        self.observe(stage, version, time.perf_counter() - began)

    def _of(self, version: int) -> dict[str, Histogram]:
        if version not in self._versions:
            self._versions[version] = {}
            if len(self._versions) > VERSIONS_KEPT:
                self._versions.popitem(last=False)
        self._versions.move_to_end(version)
        return self._versions[version]

    def add_to(self, families: StageFamilies, experiment: str, arms: Mapping[int, str]) -> None:
        """Add the series of this experiment.

        Parameters:
            arms: by version, the arm that it answers for now.
        """
        with self._lock:
            for version, histograms in sorted(self._versions.items()):
                labels = (experiment, str(version), arms.get(version, OTHER_ARM))
                for stage, histogram in histograms.items():
                    if stage:
                        families.seconds.add_metric((*labels, stage), histogram.cumulative(), histogram.total)
                    else:
                        families.batches.add_metric(labels, histogram.cumulative(), histogram.total)


class StageFamilies:
    """The metric families of all experiments."""

    def __init__(self) -> None:
        labels = ("experiment", "version", "arm")
        self.seconds = HistogramMetricFamily(
            "mlplatform_stage_seconds", "Time that a stage of predictions took.", labels=(*labels, "stage")
        )
        self.batches = HistogramMetricFamily(
            "mlplatform_batch_requests", "Requests that were answered together.", labels=labels
        )

    def __iter__(self) -> Iterator[Metric]:
        return iter((self.seconds, self.batches))
