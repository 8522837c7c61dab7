"""Drift reports by the day they are about; every one that was ever written is kept.

    <home>/monitoring/<experiment>/reports/2024-03-01/20240302T041500.000000Z.json

Several reports of a day stand beside each other, named by when they were made, and the last one counts. Earlier
versions kept one report in all, `drift_report.json`; it counts as one of the day it was made on.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

from mlplatform.monitoring.report import DriftReport
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

FIRST_FORM = "drift_report.json"


def write_report(report: DriftReport, settings: Settings) -> Path:
    """Keep a report beside those of its day, and return its file."""
    made_at = dt.datetime.fromisoformat(report.created_at).astimezone(dt.UTC)
    path = _folder(settings, report.experiment) / report.about / f"{made_at:%Y%m%dT%H%M%S.%f}Z.json"
    with atomic_file(path) as temporary:
        temporary.write_text(report.to_json())
    return path


def read_report(settings: Settings, experiment: str, until: dt.date | None = None) -> DriftReport | None:
    """Return the report about the newest day, the last one that was made about it; `None` if there is none yet.

    Parameters:
        until: leaves out reports about later days.
    """
    return next(_newest_first(settings, experiment, None, until), None)


def read_reports(
    settings: Settings, experiment: str, since: dt.date | None = None, until: dt.date | None = None
) -> list[DriftReport]:
    """Return the last report of every day that has one, oldest day first.

    Parameters:
        since, until: the days, both included; `None` leaves a side open.
    """
    return list(_newest_first(settings, experiment, since, until))[::-1]


def _newest_first(
    settings: Settings, experiment: str, since: dt.date | None, until: dt.date | None
) -> Iterator[DriftReport]:
    """Yield the last report of every day. Days are ISO 8601, so that their names have their order."""
    first, last = ("" if since is None else since.isoformat()), ("9999-12-31" if until is None else until.isoformat())
    folders = {path.name: path for path in _folder(settings, experiment).glob("????-??-??")}
    of_before = _first_form(settings, experiment)
    days = {*folders, *([of_before.about] if of_before else [])}
    for day in sorted((day for day in days if first <= day <= last), reverse=True):
        files = sorted(folders[day].glob("[0-9]*.json")) if day in folders else []
        if files:
            yield DriftReport.from_json(files[-1].read_text())
        elif of_before is not None and of_before.about == day:
            yield of_before


def _first_form(settings: Settings, experiment: str) -> DriftReport | None:
    path = _folder(settings, experiment).parent / FIRST_FORM
    return DriftReport.from_json(path.read_text()) if path.exists() else None


def _folder(settings: Settings, experiment: str) -> Path:
    return settings.home / "monitoring" / experiment / "reports"
