"""The drift report: recent features and served errors against what training saw.

A distance is called drift when it is larger than nearly all distances between stretches of the same length inside the
training rows and the rest of them. Thresholds from textbooks assume independent observations and fire on every
autocorrelated series; this one is calibrated on the series itself.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, ExperimentConfig
from mlplatform.monitoring.prediction_log import log_schema, prediction_batches
from mlplatform.plugins import DRIFT_TESTS
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

# Stretches of the training rows that the threshold is calibrated on, at most; more sharpen it no further.
CALIBRATION_STRETCHES = 60
# Values per sample that a distance is computed on, at most.
SAMPLE = 20_000
# What the served errors are computed from.
PREDICTION_COLUMNS = (
    "served_at",
    "version",
    "entity_id",
    "origin",
    "target",
    "event_timestamp",
    "value",
    "observed",
    "is_fallback",
)


@dataclass(frozen=True)
class FeatureDrift:
    """One feature's distance between recent rows and training rows."""

    column: str
    distance: float
    threshold: float

    @property
    def is_drifted(self) -> bool:
        """Whether the distance is beyond the calibrated threshold."""
        return self.distance > self.threshold


@dataclass(frozen=True)
class ErrorDrift:
    """Served errors against the reference error of the production pair.

    Attributes:
        predictions: served forecasts for the recent time steps whose truth is known by now. What stood in for one, or
            was made from less than `observation.min_observed` of its lookback, is no error of the model.
        recent: mean absolute error of those, None where there are too few.
        reference: mean absolute error of the pair on its reference set; None for tabular tasks, whose served errors are
            not followed.
    """

    predictions: int
    recent: float | None
    reference: float | None
    ratio_limit: float

    @property
    def is_drifted(self) -> bool:
        """Whether the recent error exceeds the reference error by more than the configured ratio."""
        if self.recent is None or self.reference is None:
            return False
        return self.recent > self.ratio_limit * self.reference


@dataclass(frozen=True)
class DriftReport:
    """What was compared and what drifted.

    Attributes:
        pair_version: the production pair the report is about.
        data_until: newest time stamp of the recent rows, ISO 8601.
    """

    experiment: str
    pair_version: int
    split_version: str
    data_until: str
    features: tuple[FeatureDrift, ...]
    errors: ErrorDrift
    created_at: str

    @property
    def is_drifted(self) -> bool:
        """Whether anything drifted."""
        return bool(self.causes)

    @property
    def causes(self) -> tuple[str, ...]:
        """What drifted: `feature:<column>` and `errors`."""
        causes = [f"feature:{drift.column}" for drift in self.features if drift.is_drifted]
        return (*causes, *(["errors"] if self.errors.is_drifted else []))

    @property
    def cause_id(self) -> str:
        """The same for the same kind of drift of the same production pair, so that one cause is acted on once."""
        kinds = sorted({cause.partition(":")[0] for cause in self.causes})
        text = json.dumps([self.experiment, self.pair_version, kinds])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> DriftReport:
        """Rebuild a report from JSON."""
        values = json.loads(text)
        values["features"] = tuple(FeatureDrift(**feature) for feature in values["features"])
        values["errors"] = ErrorDrift(**values["errors"])
        return cls(**values)


def report_path(settings: Settings, experiment: str) -> Path:
    """Return where an experiment's newest report is kept."""
    return settings.home / "monitoring" / experiment / "drift_report.json"


def write_report(report: DriftReport, settings: Settings) -> Path:
    """Store a report as the newest one."""
    path = report_path(settings, report.experiment)
    with atomic_file(path) as temporary:
        temporary.write_text(report.to_json())
    return path


def read_report(settings: Settings, experiment: str) -> DriftReport | None:
    """Return the newest report, or None if there is none yet."""
    path = report_path(settings, experiment)
    return DriftReport.from_json(path.read_text()) if path.exists() else None


def build_report(
    config: ExperimentConfig,
    pair_version: int,
    train: pd.DataFrame,
    history: pd.DataFrame,
    predictions: pd.DataFrame,
    reference_error: float | None,
) -> DriftReport:
    """Compare the newest rows of `history` with the training rows, and served predictions with what came true.

    Parameters:
        config: the configuration of the production pair.
        train: training rows of its split version.
        history: all rows up to now, in canonical form.
        predictions: the prediction log in long form, or what `recent_predictions` leaves of it.
        reference_error: mean absolute error of the pair on its reference set, in original units; None if unknown.
    """
    recent = _recent(config, history)
    numeric = [name for name in config.features.columns if config.dataset.columns[name].type == "float"]
    distance: Callable[[Any, Any], float] = DRIFT_TESTS.get(config.drift.test)
    features = tuple(_feature_drift(config, name, train, recent, distance) for name in numeric)
    return DriftReport(
        experiment=config.name,
        pair_version=pair_version,
        split_version=config.split.version_id,
        data_until=recent[TIMESTAMP].max().isoformat(),
        features=features,
        errors=_error_drift(config, pair_version, recent, predictions, reference_error),
        created_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )


def recent_predictions(
    settings: Settings, config: ExperimentConfig, pair_version: int, history: pd.DataFrame, since: dt.datetime
) -> pd.DataFrame:
    """Return what `build_report` needs of the prediction log, in memory that its length does not change: what a pair
    predicted for the newest `recent_steps` of `history`. Empty for tabular tasks.

    Parameters:
        since: leaves out what was served earlier, such as before the pair was registered.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    names = pa.schema([log_schema().field(name) for name in PREDICTION_COLUMNS])
    kept = [names.empty_table()]
    if config.task == "forecast":
        start = pa.scalar(_recent_start(config, history), pa.timestamp("ns", tz="UTC"))
        is_asked = (pc.field("version") == pair_version) & (pc.field("event_timestamp") > start)
        batches = prediction_batches(settings, config.name, since, columns=PREDICTION_COLUMNS)
        kept += [pa.Table.from_batches([batch]).filter(is_asked) for batch in batches]
    frame: pd.DataFrame = pa.concat_tables(kept).to_pandas()
    return frame


def _recent_start(config: ExperimentConfig, history: pd.DataFrame) -> pd.Timestamp:
    start: pd.Timestamp = history[TIMESTAMP].max() - config.drift.recent_steps * pd.Timedelta(config.dataset.step)
    return start


def _recent(config: ExperimentConfig, history: pd.DataFrame) -> pd.DataFrame:
    """Return the newest `recent_steps` of the history (tabular: its newest rows)."""
    if config.task != "forecast":
        return history.tail(config.drift.recent_steps)
    recent: pd.DataFrame = history.loc[history[TIMESTAMP] > _recent_start(config, history)]
    return recent


def _feature_drift(
    config: ExperimentConfig,
    column: str,
    train: pd.DataFrame,
    recent: pd.DataFrame,
    distance: Callable[[Any, Any], float],
) -> FeatureDrift:
    generator = np.random.default_rng(config.seed)
    values = train[column].to_numpy(dtype=np.float64)
    new = _thin(_finite(recent[column].to_numpy(dtype=np.float64)), generator)
    if not len(new):
        return FeatureDrift(column, float("inf"), 0.0)
    background = _thin(_finite(values), generator)
    calibration = [distance(background, _thin(part, generator)) for part in _stretches(config, column, train)]
    threshold = float(np.quantile(calibration, config.drift.quantile)) if calibration else float("inf")
    return FeatureDrift(column, distance(background, new), threshold)


def _stretches(config: ExperimentConfig, column: str, train: pd.DataFrame) -> list[npt.NDArray[np.float64]]:
    """Return consecutive stretches of the training rows, each as long as the recent rows."""
    if config.task != "forecast":
        size = config.drift.recent_steps
        parts = [train[column].to_numpy(dtype=np.float64)[i : i + size] for i in range(0, len(train) - size + 1, size)]
        return [_finite(part) for part in parts[-CALIBRATION_STRETCHES:] if len(_finite(part))]
    length = config.drift.recent_steps * pd.Timedelta(config.dataset.step)
    block = (train[TIMESTAMP].max() - train[TIMESTAMP]) // length
    whole = int((train[TIMESTAMP].max() - train[TIMESTAMP].min()) // length)
    grouped = train[column].astype(np.float64).groupby(block.to_numpy())
    parts = [_finite(values.to_numpy()) for number, values in grouped if number < min(whole, CALIBRATION_STRETCHES)]
    return [part for part in parts if len(part)]


def _error_drift(
    config: ExperimentConfig,
    pair_version: int,
    recent: pd.DataFrame,
    predictions: pd.DataFrame,
    reference_error: float | None,
) -> ErrorDrift:
    """Judge the pair by the predictions for recent rows only: a long good past would hide what is wrong now."""
    own = predictions[predictions["version"] == pair_version]
    # What is unknown, in logs of earlier versions, counts.
    is_fallback = own["is_fallback"].astype("boolean").fillna(False)
    own = own[~is_fallback & ~(own["observed"] < config.observation.min_observed)]
    truth = (
        recent.melt([ENTITY, TIMESTAMP], list(config.targets), "target", "truth") if config.task == "forecast" else None
    )
    if truth is None or own.empty:
        return ErrorDrift(0, None, reference_error, config.drift.error_ratio)
    truth[ENTITY] = truth[ENTITY].astype(str)
    newest = own.sort_values("served_at").drop_duplicates([ENTITY, "target", "origin", TIMESTAMP], keep="last")
    joined = newest.merge(truth, on=[ENTITY, TIMESTAMP, "target"]).dropna(subset=["truth", "value"])
    count = len(joined)
    if count < config.drift.min_predictions:
        return ErrorDrift(count, None, reference_error, config.drift.error_ratio)
    error = float((joined["value"] - joined["truth"]).abs().mean())
    return ErrorDrift(count, error, reference_error, config.drift.error_ratio)


def _finite(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values[np.isfinite(values)]


def _thin(values: npt.NDArray[np.float64], generator: np.random.Generator) -> npt.NDArray[np.float64]:
    return values if len(values) <= SAMPLE else generator.choice(values, SAMPLE, replace=False)
