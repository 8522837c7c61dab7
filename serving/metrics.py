"""What `/metrics` reports, in Prometheus' text format.

The numbers are kept in plain dictionaries and turned into metric families at the moment of a scrape. The counters of
`prometheus_client` would not do: once anything in the process sets `PROMETHEUS_MULTIPROC_DIR`, as Feast does when it is
imported, they move into files that all applications of the process share. Labels take values from small closed sets
only (route templates, status codes, versions), never from request content.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from mlplatform.monitoring import PredictionLog
from mlplatform.registry.pairs import PairInfo

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Samples = Iterable[tuple[tuple[str, ...], float]]


class ServingMetrics:
    """The numbers of one application.

    Parameters:
        experiment: the experiment it serves.
        log: its prediction log, whose own counts are reported too.
    """

    def __init__(self, experiment: str, log: PredictionLog) -> None:
        self._experiment = experiment
        self._log = log
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._latencies: dict[str, _Histogram] = {}
        self._predictions: Counter[str] = Counter()
        self._reloads: Counter[str] = Counter()
        self._feature_age_seconds: float | None = None
        self._stale: Counter[str] = Counter()

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request; `route` is the template, not the path."""
        with self._lock:
            self._requests[method, route, str(status)] += 1
            self._latencies.setdefault(route, _Histogram()).observe(seconds)

    def observe_predictions(self, version: int, count: int) -> None:
        """Count predictions."""
        with self._lock:
            self._predictions[str(version)] += count

    def observe_feature_age(self, seconds: float | None) -> None:
        """Remember the age of the oldest features of a request; `None`, of features without a time, changes nothing."""
        if seconds is not None:
            self._feature_age_seconds = seconds

    def observe_stale(self, outcome: str, entities: int) -> None:
        """Count entities with features older than the experiment's limit, by what became of their request."""
        if entities:
            with self._lock:
                self._stale[outcome] += entities

    def observe_reload(self, outcome: str) -> None:
        """Count one reload."""
        with self._lock:
            self._reloads[outcome] += 1

    def render(self, pair: PairInfo | None) -> bytes:
        """Return the text page; `pair` is what is served now."""
        registry = CollectorRegistry(auto_describe=False)
        with self._lock:
            registry.register(_Families([*self._request_families(), *self._model_families(pair)]))
        return generate_latest(registry)

    def _request_families(self) -> Iterator[Metric]:
        labels = ("method", "route", "status")
        yield _counter("mlplatform_http_requests", "HTTP requests answered.", labels, self._requests.items())
        latency = HistogramMetricFamily(
            "mlplatform_http_request_seconds", "Time until a request was answered.", labels=("route",)
        )
        for route, histogram in self._latencies.items():
            latency.add_metric((route,), histogram.cumulative(), histogram.total)
        yield latency

    def _model_families(self, pair: PairInfo | None) -> Iterator[Metric]:
        name, one = self._experiment, ("experiment",)
        predictions = [((name, version), count) for version, count in self._predictions.items()]
        yield _counter("mlplatform_predictions", "Rows predicted.", ("experiment", "version"), predictions)
        reloads = [((name, outcome), count) for outcome, count in self._reloads.items()]
        yield _counter("mlplatform_reloads", "Reloads by outcome.", ("experiment", "outcome"), reloads)
        served = [((name, str(pair.version), pair.pair_id), 1)] if pair else []
        yield _gauge(
            "mlplatform_served_pair_info", "The pair that is served.", ("experiment", "version", "pair_id"), served
        )
        age = [] if self._feature_age_seconds is None else [((name,), self._feature_age_seconds)]
        yield _gauge("mlplatform_feature_age_seconds", "Age of the latest request's oldest features.", one, age)
        stale = [((name, outcome), count) for outcome, count in self._stale.items()]
        text = "Entities asked for whose features were older than staleness.max_age."
        yield _counter("mlplatform_stale_features", text, ("experiment", "outcome"), stale)
        log = self._log
        rows = "mlplatform_prediction_log_rows"
        yield _counter(f"{rows}_written", "Rows of the prediction log written.", one, [((name,), log.written_rows)])
        yield _counter(f"{rows}_dropped", "Rows lost to a full buffer.", one, [((name,), log.dropped_rows)])
        yield _gauge(f"{rows}_buffered", "Rows that wait to be written.", one, [((name,), log.buffered_rows)])


class _Histogram:
    """Counts per latency bucket."""

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BUCKETS_SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(LATENCY_BUCKETS_SECONDS, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Return, per upper bound, how many observations were at most that long."""
        running, buckets = 0, []
        bounds = (*map(str, LATENCY_BUCKETS_SECONDS), "+Inf")
        for bound, count in zip(bounds, self.counts, strict=True):
            running += count
            buckets.append((bound, float(running)))
        return buckets


class _Families(Collector):
    """Families that are already made."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _counter(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
