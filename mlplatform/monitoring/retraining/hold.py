"""What broken data hold up beside retraining: promotions, until a report finds the data mended."""

from __future__ import annotations

import datetime as dt

from mlplatform.config import ExperimentConfig
from mlplatform.monitoring.kept_reports import read_report
from mlplatform.monitoring.retraining.facts import moment
from mlplatform.settings import Settings


def hold_of(config: ExperimentConfig, settings: Settings, now: dt.datetime | None = None) -> str:
    """Return why nothing may be promoted, by the newest drift report; empty if it says nothing against it.

    A report that is older than the policy's `expire_hours` is no evidence any more.
    """
    report = read_report(settings, config.name)
    if report is None or not report.is_broken:
        return ""
    age = (now or dt.datetime.now(dt.UTC)) - moment(report.created_at)
    if age > dt.timedelta(hours=config.drift.retrain.expire_hours):
        return ""
    broken = ", ".join(dict.fromkeys(each.name for each in report.quality))
    return (
        f"the data are broken ({broken}), by the drift report of {report.created_at}; have them mended and run "
        f"monitor_{report.experiment}, or promote by hand and give the reason"
    )
