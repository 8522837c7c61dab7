"""What broken data hold up beside the policy's own runs: trainings and promotions, until a report finds them mended."""

from __future__ import annotations

import datetime as dt

from mlplatform.config import ExperimentConfig
from mlplatform.monitoring.kept_reports import read_report, read_reports
from mlplatform.monitoring.report import DriftReport
from mlplatform.settings import Settings
from mlplatform.state_files import moment


class BrokenDataError(RuntimeError):
    """A training on rows that a drift report calls broken."""


def hold_of(config: ExperimentConfig, settings: Settings, now: dt.datetime | None = None) -> str:
    """Return why nothing may be promoted, by the newest drift report; empty if it says nothing against it.

    A report that is older than the policy's `expire_hours` is no evidence any more.
    """
    broken = _broken(config, settings, now)
    if broken is None:
        return ""
    return f"{_words(broken)}; have them mended and run monitor_{config.name}, or promote by hand and give the reason"


def training_hold_of(
    config: ExperimentConfig, settings: Settings, rows_until: dt.datetime | None, now: dt.datetime | None = None
) -> str:
    """Return why nothing may be trained, by the newest drift report; empty if it says nothing against it.

    Parameters:
        rows_until: newest of the rows to train and judge on; `None` where that is not known, or rows have no times.
            Rows that a report found sound before the feed broke may be trained on.
    """
    broken = _broken(config, settings, now)
    if broken is None:
        return ""
    if rows_until is not None:
        since = moment(broken.created_at) - dt.timedelta(hours=config.drift.retrain.expire_hours)
        sound = [each for each in read_reports(settings, config.name, since.date(), now=now) if not each.is_broken]
        if sound and rows_until <= moment(sound[-1].data_until):
            return ""
    return (
        f"{_words(broken)}; have them mended and run monitor_{config.name}, name a split version that ends before "
        "they broke, or ask again with despite_broken_data"
    )


def _broken(config: ExperimentConfig, settings: Settings, now: dt.datetime | None) -> DriftReport | None:
    """Return the newest report if it calls the data broken and is no older than the policy allows.

    One that cannot be read is none: the report before it stands, and the hold that it gave.
    """
    report = read_report(settings, config.name, now=now)
    if report is None or not report.is_broken:
        return None
    age = (now or dt.datetime.now(dt.UTC)) - moment(report.created_at)
    return None if age > dt.timedelta(hours=config.drift.retrain.expire_hours) else report


def _words(report: DriftReport) -> str:
    broken = ", ".join(dict.fromkeys(each.name for each in report.quality))
    return f"the data are broken ({broken}), by the drift report of {report.created_at}"
