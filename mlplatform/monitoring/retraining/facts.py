"""What a retrain decision is made from: what drift reports said, and what became of the runs that were asked for.

Plain values that are stored with the decision, so that any policy can be asked about them later.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from mlplatform.monitoring.report import DriftReport
from mlplatform.state_files import is_ahead, moment

ERRORS, FEATURE = "errors", "feature:"
# A cause that stands for all features, where too many drifted to name them.
ANY_FEATURE = f"{FEATURE}*"
# Features that are named in the tags of a run and in stored facts, at most, and faults of the data.
NAMED_FEATURES = 40

RunState = Literal["open", "succeeded", "failed", "canceled"]


@dataclass(frozen=True)
class ReportFacts:
    """What one drift report said.

    Attributes:
        created_at, data_until: ISO 8601.
        day: which it is about, ISO 8601.
        rows: how many rows the table had; `None` for time series, and where an earlier version made the report.
        pair_version, split_version: of the production pair it is about.
        causes: what drifted, `errors` and `feature:<column>`.
        suspects: features that it alone would raise an alarm for, as causes are named.
        error_ratio: recent to reference error; `None` where there are too few.
        broken: what is wrong with the data, as `stuck:load`; beyond 40 names, as `460 more`, how many there are.
    """

    created_at: str
    data_until: str
    pair_version: int
    split_version: str
    causes: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()
    error_ratio: float | None = None
    broken: tuple[str, ...] = ()
    day: str = ""
    rows: int | None = None

    def __post_init__(self) -> None:
        # Also of what earlier versions stored, which was all, however much.
        object.__setattr__(self, "broken", _counted(self.broken))

    @classmethod
    def of(cls, report: DriftReport) -> ReportFacts:
        """Return the facts of a report."""
        errors = report.errors
        ratio = errors.recent / errors.reference if errors.recent is not None and errors.reference else None
        return cls(
            created_at=report.created_at,
            data_until=report.data_until,
            pair_version=report.pair_version,
            split_version=report.split_version,
            causes=named(report.causes),
            suspects=named([f"{FEATURE}{column}" for column in report.suspects]),
            error_ratio=ratio,
            broken=tuple(dict.fromkeys(each.name for each in report.quality)),
            day=report.about,
            rows=report.rows,
        )

    def shows(self, cause: str) -> bool:
        """Return whether it says that this has drifted."""
        return cause in self.causes

    def clears(self, cause: str, clear_error_ratio: float) -> bool:
        """Return whether it says that nothing is the matter with this, which is more than not showing it."""
        if self.shows(cause):
            return False
        if cause == ERRORS:
            return self.error_ratio is not None and self.error_ratio <= clear_error_ratio
        return cause not in self.suspects and ANY_FEATURE not in self.suspects


@dataclass(frozen=True)
class RunFacts:
    """One training run of the experiment, asked for by drift or by anyone.

    Attributes:
        created_at, ended_at: ISO 8601; `ended_at` is `None` while it is open.
        request: the request it belongs to; `None` for runs that drift did not ask for.
        attempt: which try of the request it is, from 1.
        causes, pair_version, data_until, rows: what the request was about, as a report says it.
    """

    run_id: str
    state: RunState
    created_at: str
    ended_at: str | None = None
    request: str | None = None
    attempt: int = 1
    causes: tuple[str, ...] = ()
    pair_version: int | None = None
    data_until: str | None = None
    rows: int | None = None

    def covers(self, causes: Iterable[str]) -> bool:
        """Return whether it acted on all of these."""
        return all(
            cause in self.causes or (cause.startswith(FEATURE) and ANY_FEATURE in self.causes) for cause in causes
        )


@dataclass(frozen=True)
class Inputs:
    """All that a decision depends on, beside the policy and the time.

    Attributes:
        reports: oldest first.
        runs: newest first.
        window_hours: length of a report's recent window; `None` where rows have no times.
        production: the version in production; `None` if that is unknown.
    """

    experiment: str
    reports: tuple[ReportFacts, ...] = ()
    runs: tuple[RunFacts, ...] = ()
    window_hours: float | None = None
    production: int | None = None

    def known_at(self, now: dt.datetime) -> Inputs:
        """Return the inputs without reports that a clock which was wrong has made in the future of `now`."""
        return replace(self, reports=tuple(each for each in self.reports if not is_ahead(moment(each.created_at), now)))

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Inputs:
        """Rebuild inputs from plain values."""
        reports = tuple(_rebuilt(ReportFacts, each) for each in values["reports"])
        runs = tuple(_rebuilt(RunFacts, each) for each in values["runs"])
        return cls(values["experiment"], reports, runs, values["window_hours"], values["production"])


def named(causes: Iterable[str]) -> tuple[str, ...]:
    """Return causes with the features beyond a number by one name for all, so that what is stored stays short."""
    features = [cause for cause in causes if cause.startswith(FEATURE)]
    others = tuple(cause for cause in causes if not cause.startswith(FEATURE))
    if len(features) <= NAMED_FEATURES:
        return (*features, *others)
    return (*features[:NAMED_FEATURES], ANY_FEATURE, *others)


def _counted(broken: tuple[str, ...]) -> tuple[str, ...]:
    """Return names with those beyond a number as a count; what is short already stays as it is."""
    if len(broken) <= NAMED_FEATURES + 1:
        return broken
    return (*broken[:NAMED_FEATURES], f"{len(broken) - NAMED_FEATURES} more")


def _rebuilt(kind: Any, values: Mapping[str, Any]) -> Any:
    """Return a fact from plain values; what a later version added is left out."""
    known = {field.name for field in fields(kind)}
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name in known})
