"""What broken data hold up beside retraining: promotions, until a report finds the data mended."""

from __future__ import annotations

import datetime as dt

from mlplatform.config import DriftConfig
from mlplatform.monitoring.drift import DriftReport
from mlplatform.monitoring.retraining.facts import moment


def hold_of(report: DriftReport | None, policy: DriftConfig, now: dt.datetime) -> str:
    """Return why nothing may be promoted, by the newest report; empty if it says nothing against it.

    A report that is older than the policy's `expire_hours` is no evidence any more.
    """
    if report is None or not report.is_broken:
        return ""
    if now - moment(report.created_at) > dt.timedelta(hours=policy.retrain.expire_hours):
        return ""
    broken = ", ".join(dict.fromkeys(each.name for each in report.quality))
    return (
        f"the data are broken ({broken}), by the drift report of {report.created_at}; have them mended and run "
        f"monitor_{report.experiment}, or promote by hand and give the reason"
    )
