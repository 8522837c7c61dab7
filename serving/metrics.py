"""What `/metrics` reports, in Prometheus' text format.

The numbers are kept in plain dictionaries and turned into metric families at the moment of a scrape. The counters of
`prometheus_client` would not do: once anything in the process sets `PROMETHEUS_MULTIPROC_DIR`, as Feast does when it is
imported, they move into files that all applications of the process share. Labels take values from small closed sets
only (route templates, status codes, versions), never from request content.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from mlplatform.monitoring import PredictionLog
from mlplatform.registry.pairs import PRODUCTION, PairInfo
from serving.exposition import page_of
from serving.histograms import Histogram
from serving.timing import VERSIONS_KEPT, StageFamilies, StageTimes

Samples = Iterable[tuple[tuple[str, ...], float]]


class ServingMetrics:
    """The numbers of one application.

    Parameters:
        logs: the prediction log of every experiment that it serves, whose own counts are reported too.
    """

    def __init__(self, logs: Mapping[str, PredictionLog]) -> None:
        self._logs = logs
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._latencies: dict[str, Histogram] = {}
        self._predictions: Counter[tuple[str, str, str]] = Counter()
        self._reloads: Counter[tuple[str, str]] = Counter()
        self._feature_age_seconds: dict[str, float] = {}
        self._fallbacks: Counter[tuple[str, str]] = Counter()
        self._stale: Counter[tuple[str, str]] = Counter()
        self._rejections: Counter[tuple[str, str]] = Counter()
        self._in_flight: Counter[str] = Counter()

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request; `route` is the template, not the path."""
        with self._lock:
            self._requests[method, route, str(status)] += 1
            self._latencies.setdefault(route, Histogram()).observe(seconds)

    def observe_predictions(self, experiment: str, arm: str, version: int, count: int) -> None:
        """Count predictions."""
        with self._lock:
            # The version used last stands last.
            key = experiment, arm, str(version)
            self._predictions[key] = self._predictions.pop(key, 0) + count
            mine = [other for other in self._predictions if other[:2] == key[:2]]
            for other in mine[:-VERSIONS_KEPT]:
                del self._predictions[other]

    def observe_feature_age(self, experiment: str, seconds: float | None) -> None:
        """Remember the age of the oldest features of a request; `None`, of features without a time, changes nothing."""
        if seconds is not None:
            self._feature_age_seconds[experiment] = seconds

    def observe_stale(self, experiment: str, outcome: str, entities: int) -> None:
        """Count entities with features older than the experiment's limit, by what became of their request."""
        if entities:
            with self._lock:
                self._stale[experiment, outcome] += entities

    def observe_fallbacks(self, experiment: str, reasons: Iterable[str | None]) -> None:
        """Count forecasts that something stands in for, by why it does."""
        counted = Counter((experiment, reason) for reason in reasons if reason is not None)
        if counted:
            with self._lock:
                self._fallbacks.update(counted)

    def observe_reload(self, experiment: str, outcome: str) -> None:
        """Count one reload."""
        with self._lock:
            self._reloads[experiment, outcome] += 1

    def observe_rejection(self, experiment: str, reason: str) -> None:
        """Count a request that was not answered.

        Parameters:
            experiment: empty for a request of which it is not known.
            reason: the error's code.
        """
        with self._lock:
            self._rejections[experiment, reason] += 1

    @contextmanager
    def in_flight(self, experiment: str) -> Iterator[None]:
        """Count a request as worked for while the context is open."""
        self._in_flight[experiment] += 1
        try:
            yield
        finally:
            self._in_flight[experiment] -= 1

    def render(
        self,
        pairs: Mapping[str, Mapping[str, PairInfo]],
        looks: Mapping[str, Mapping[str, int]],
        times: Mapping[str, StageTimes],
        queues: Mapping[str, int],
        further: Iterable[Metric] = (),
    ) -> bytes:
        """Return the text page.

        Parameters:
            pairs: what every experiment serves now, by arm.
            looks: by experiment, how its looks for another pair ended.
            times: by experiment, how long its stages took.
            queues: by stage, how many requests wait for it.
            further: families that others count.
        """
        stages = StageFamilies()
        for name, each in times.items():
            # Where both arms have one version for a moment, it is production's.
            arms = sorted(pairs.get(name, {}).items(), key=lambda item: item[0] == PRODUCTION)
            each.add_to(stages, name, {pair.version: arm for arm, pair in arms})
        with self._lock:
            own = [*self._request_families(), *self._model_families(pairs), _looks(looks)]
            return page_of([*own, *stages, *self._load_families(queues), *further])

    def _request_families(self) -> Iterator[Metric]:
        labels = ("method", "route", "status")
        yield _counter("mlplatform_http_requests", "HTTP requests answered.", labels, self._requests.items())
        latency = HistogramMetricFamily(
            "mlplatform_http_request_seconds", "Time until a request was answered.", labels=("route",)
        )
        for route, histogram in self._latencies.items():
            latency.add_metric((route,), histogram.cumulative(), histogram.total)
        yield latency

    def _load_families(self, queues: Mapping[str, int]) -> Iterator[Metric]:
        """Yield what says how much there is to do, and what was not done."""
        labels = ("experiment", "reason")
        yield _counter("mlplatform_rejections", "Requests not answered.", labels, self._rejections.items())
        flying = [((name,), count) for name, count in self._in_flight.items()]
        yield _gauge("mlplatform_requests_in_flight", "Predictions being worked for.", ("experiment",), flying)
        waiting = [((stage,), count) for stage, count in queues.items()]
        yield _gauge("mlplatform_queue_depth", "Requests that wait for a stage.", ("stage",), waiting)
        yield _gauge("mlplatform_workers", "Processes that answer.", (), [((), 1)])

    def _model_families(self, pairs: Mapping[str, Mapping[str, PairInfo]]) -> Iterator[Metric]:
        one = ("experiment",)
        predictions = ("experiment", "arm", "version")
        yield _counter("mlplatform_predictions", "Rows predicted.", predictions, self._predictions.items())
        outcome = ("experiment", "outcome")
        yield _counter("mlplatform_reloads", "Reloads by outcome.", outcome, self._reloads.items())
        served = [
            ((name, arm, str(pair.version), pair.pair_id), 1)
            for name, arms in pairs.items()
            for arm, pair in arms.items()
        ]
        labels = ("experiment", "arm", "version", "pair_id")
        yield _gauge("mlplatform_served_pair_info", "The pairs that are served.", labels, served)
        ages = [((name,), age) for name, age in self._feature_age_seconds.items()]
        yield _gauge("mlplatform_feature_age_seconds", "Age of the latest request's oldest features.", one, ages)
        text = "Entities asked for whose features were older than staleness.max_age."
        yield _counter("mlplatform_stale_features", text, outcome, self._stale.items())
        text = "Forecasts that something stands in for."
        yield _counter("mlplatform_fallback_forecasts", text, ("experiment", "reason"), self._fallbacks.items())
        rows, logs = "mlplatform_prediction_log_rows", self._logs.items()
        written = [((name,), log.written_rows) for name, log in logs]
        yield _counter(f"{rows}_written", "Rows of the prediction log written.", one, written)
        dropped = [((name,), log.dropped_rows) for name, log in logs]
        yield _counter(f"{rows}_dropped", "Rows lost to a full buffer.", one, dropped)
        buffered = [((name,), log.buffered_rows) for name, log in logs]
        yield _gauge(f"{rows}_buffered", "Rows that wait to be written.", one, buffered)


def _looks(looks: Mapping[str, Mapping[str, int]]) -> Metric:
    found = [((name, outcome), count) for name, counts in looks.items() for outcome, count in counts.items()]
    text = "Looks of the server itself whether another pair is in production, by outcome."
    return _counter("mlplatform_alias_polls", text, ("experiment", "outcome"), found)


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
