"""Drift reports by the day they are about; every one that was ever written is kept.

    <home>/monitoring/<experiment>/reports/2024-03-01/20240302T041500.000000Z.json

Several reports of a day stand beside each other, named by when they were made, and the last one counts. Earlier
versions kept one report in all, `drift_report.json`; it counts as one of the day it was made on.

A report that is damaged is left out with a warning: the one before it stands. So is one about a day that is still to
come, or made then, by a clock that was wrong: it would be the newest for as long.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

from mlplatform.monitoring.report import DriftReport
from mlplatform.settings import Settings
from mlplatform.state_files import AHEAD, is_ahead, moment, read_state, warn_of
from mlplatform.storage import atomic_file

FIRST_FORM = "drift_report.json"


def write_report(report: DriftReport, settings: Settings) -> Path:
    """Keep a report beside those of its day, and return its file."""
    made_at = dt.datetime.fromisoformat(report.created_at).astimezone(dt.UTC)
    path = _folder(settings, report.experiment) / report.about / f"{made_at:%Y%m%dT%H%M%S.%f}Z.json"
    with atomic_file(path) as temporary:
        temporary.write_text(report.to_json())
    return path


def read_report(
    settings: Settings, experiment: str, until: dt.date | None = None, now: dt.datetime | None = None
) -> DriftReport | None:
    """Return the report about the newest day, the last one that was made about it; `None` if there is none yet.

    Parameters:
        until: leaves out reports about later days.
        now: the present, which no report may be ahead of; by default the clock's.
    """
    return next(_newest_first(settings, experiment, None, until, now), None)


def read_reports(
    settings: Settings,
    experiment: str,
    since: dt.date | None = None,
    until: dt.date | None = None,
    now: dt.datetime | None = None,
) -> list[DriftReport]:
    """Return the last report of every day that has one, oldest day first.

    Parameters:
        since, until: the days, both included; `None` leaves a side open.
        now: the present, which no report may be ahead of; by default the clock's.
    """
    return list(_newest_first(settings, experiment, since, until, now))[::-1]


def _newest_first(
    settings: Settings, experiment: str, since: dt.date | None, until: dt.date | None, now: dt.datetime | None
) -> Iterator[DriftReport]:
    """Yield the last report of every day. Days are ISO 8601, so that their names have their order."""
    now = now or dt.datetime.now(dt.UTC)
    first, last = ("" if since is None else since.isoformat()), ("9999-12-31" if until is None else until.isoformat())
    folders = {path.name: path for path in _folder(settings, experiment).glob("????-??-??")}
    first_form = _folder(settings, experiment).parent / FIRST_FORM
    of_before = _read(first_form, now)
    days = {*folders, *([of_before.about] if of_before else [])}
    for day in sorted((day for day in days if first <= day <= last), reverse=True):
        files = sorted(folders[day].glob("[0-9]*.json"), reverse=True) if day in folders else []
        report = next((found for path in files if (found := _read(path, now)) is not None), None)
        if report is None and of_before is not None and of_before.about == day:
            report = of_before
        if report is not None:
            yield report


def _read(path: Path, now: dt.datetime) -> DriftReport | None:
    """Return a report; `None`, after a warning, if it is damaged or ahead of its time."""
    otherwise = "the report before it counts; run the experiment's monitor job for a new one, or restore the file"
    report = read_state(path, DriftReport.from_json, otherwise)
    if report is None:
        return None
    is_to_come = report.about > (now.astimezone(dt.UTC) + AHEAD).date().isoformat()
    if is_to_come or is_ahead(moment(report.created_at), now):
        made = f"is about {report.about} and was made at {report.created_at}, which is still to come"
        warn_of(path, f"{made}, and is left out; set the clock right, and delete the file")
        return None
    return report


def _folder(settings: Settings, experiment: str) -> Path:
    return settings.home / "monitoring" / experiment / "reports"
