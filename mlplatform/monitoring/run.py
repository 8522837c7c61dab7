"""What a look at the pair in production reads, in which order, and what it keeps: a report, the scale of intervals."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mlplatform.config import TIMESTAMP, ExperimentConfig
from mlplatform.datamodule import TRAIN, read_part
from mlplatform.features import FeatureStoreError
from mlplatform.features.retrieval import load_history
from mlplatform.monitoring.adaptation import update_scale
from mlplatform.monitoring.drift import build_report, feature_courses
from mlplatform.monitoring.error_drift import judge_errors, reference_error_of
from mlplatform.monitoring.forecast_errors import summarise_errors
from mlplatform.monitoring.kept_reports import read_report, write_report
from mlplatform.monitoring.live_error import read_error_test, write_error_test
from mlplatform.monitoring.page import report_page
from mlplatform.monitoring.report import DriftReport
from mlplatform.registry import IntervalScale, write_scale
from mlplatform.registry.pairs import PRODUCTION, PairNotFoundError, PairStore
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

# Days of errors that a page shows.
PAGE_DAYS = pd.Timedelta(days=60)


@dataclass(frozen=True)
class KeptReport:
    """A report, the file it is kept in, and its page."""

    report: DriftReport
    path: Path
    page: Path


def adapt_intervals(config: ExperimentConfig, settings: Settings) -> IntervalScale | None:
    """Have the intervals of the production pair follow what came true; see `update_scale`. `None` without a pair."""
    if config.adaptation.step_size is None:
        write_scale(None, settings, config.name)
        return None
    store = PairStore(settings)
    try:
        pair = store.resolve(config.registered_name, PRODUCTION)
    except PairNotFoundError:
        return None
    return update_scale(config, settings, pair, store.load(pair).model, pd.Timestamp.now(tz="UTC"))


def report_on(config: ExperimentConfig, settings: Settings, day: dt.date, clock: dt.datetime) -> KeptReport:
    """Report on the pair in production by the knowledge of a day's end, or of the present where the day goes on.

    Rows are those of now with times up to then; corrections that came later are in them.

    Raises:
        PairNotFoundError: if no pair is in production.
        FeatureStoreError: if the dataset has no rows by then.
    """
    now = min(clock, dt.datetime.combine(day, dt.time.max, dt.UTC))
    store = PairStore(settings)
    pair = store.resolve(config.registered_name, PRODUCTION)
    history = load_history(config.dataset, tuple(config.dataset.columns), settings, end=now)
    if history.empty:
        raise FeatureStoreError(f"dataset {config.dataset.name!r} has no rows by {now}; ask for a later day")
    reference_error = reference_error_of(config, store.client.get_run(pair.run_id).data.metrics)
    newest = history[TIMESTAMP].max() if config.task == "forecast" else pd.Timestamp(now)
    is_past = now < clock
    before = None if is_past else read_error_test(settings, config.name)
    errors, error_test = judge_errors(config, settings, pair.version, newest, reference_error, before)
    train = read_part(settings, config.dataset.name, pair.tags["split_version"], TRAIN)
    report = build_report(
        config,
        pair.version,
        train=train,
        history=history,
        errors=errors,
        previous=read_report(settings, config.name, until=day, now=clock),
        now=now,
    )
    path = write_report(report, settings)
    if error_test is not None and not is_past:
        write_error_test(error_test, settings, config.name)
    page = _write_page(config, settings, report, path, train, history, pd.Timestamp(now))
    store.client.log_artifact(pair.run_id, str(page), "monitoring")
    return KeptReport(report, path, page)


def _write_page(
    config: ExperimentConfig,
    settings: Settings,
    report: DriftReport,
    path: Path,
    train: pd.DataFrame,
    history: pd.DataFrame,
    now: pd.Timestamp,
) -> Path:
    """Write the page of a report beside it."""
    courses = feature_courses(config, train, history)
    newest = history[TIMESTAMP].max() if config.task == "forecast" else now

    def errors_by(*keys: str) -> pd.DataFrame:
        found = summarise_errors(config, settings, ("version", *keys), newest - PAGE_DAYS, newest)
        return found[found["version"] == report.pair_version]

    page = path.with_name(f"{report.experiment}-{path.stem}.html")
    with atomic_file(page) as temporary:
        text = report_page(report, courses, errors_by("day"), errors_by("day", "coverage"))
        temporary.write_text(text, encoding="utf-8")
    return page
