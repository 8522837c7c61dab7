"""What a drift report says: about every feature, about the served errors, and about what is broken in the data.

Not here: how it comes to say so (`drift`), and where it is kept (`kept_reports`).
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict, dataclass

from mlplatform.state_files import moment, parsed

# What is known about a feature. A change is suspected at first. It is drift at once where its adjusted p-value is below
# a part of the false-alarm rate, and else if it is still there a recent window later, in rows that are all new.
STEADY, SUSPECTED, DRIFT, SHORT, BROKEN = "steady", "suspected", "drift", "not enough history", "broken"
TREND, NOVEL_SEASON = "trend", "novel season"
# Between the two columns of a swap.
AND = " and "


@dataclass(frozen=True)
class QualityBreak:
    """Something that is broken.

    Attributes:
        kind: `schema`, `freshness`, `missing`, `stuck`, `late`, `range`, `unit` or `swapped`.
        column: the feature; empty where it is about all.
        detail: what was found, and what was expected.
    """

    kind: str
    column: str
    detail: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The features that must not be judged while this is broken."""
        return tuple(self.column.split(AND)) if self.column else ()

    @property
    def name(self) -> str:
        """Kind and column, as `stuck:load`."""
        return f"{self.kind}:{self.column}" if self.column else self.kind


@dataclass(frozen=True)
class FeatureDrift:
    """What is known about one feature, or about the correlations of all features.

    Attributes:
        distance: between recent rows and training rows, by the configured test.
        threshold: the configured quantile of such distances between stretches of the training rows.
        status: `steady`, `suspected`, `drift`, `trend`, `novel season`, `not enough history` or `broken`; `None` in
            reports of earlier versions, which judged by the threshold.
        kinds: what has changed, such as `level` or `spread`.
        q: the share of false alarms among alarms as strong as this; `None` where nothing could be asked.
        suspected_since: newest row of the first report of the unbroken row of reports that suspected it, ISO 8601.
    """

    column: str
    distance: float
    threshold: float
    status: str | None = None
    kinds: tuple[str, ...] = ()
    q: float | None = None
    suspected_since: str | None = None

    @property
    def is_drifted(self) -> bool:
        """Whether the feature has drifted, beyond suspicion."""
        return self.distance > self.threshold if self.status is None else self.status == DRIFT

    @property
    def is_suspected(self) -> bool:
        """Whether this report alone would raise an alarm."""
        return self.is_drifted or self.status == SUSPECTED


@dataclass(frozen=True)
class GroupDrift:
    """A feature of one entity, or of one group of entities, that is not steady.

    Attributes:
        status, kinds, q, suspected_since: as of a feature.
        change: of its level, in standard deviations of the training.
    """

    column: str
    group: str
    status: str
    kinds: tuple[str, ...]
    q: float
    change: float
    suspected_since: str | None = None

    @property
    def name(self) -> str:
        """Feature and group, as `load[7]`."""
        return name_in_group(self.column, self.group)

    @property
    def is_drifted(self) -> bool:
        """Whether it has drifted, beyond suspicion."""
        return self.status == DRIFT

    @property
    def is_suspected(self) -> bool:
        """Whether this report alone would raise an alarm."""
        return self.status in (DRIFT, SUSPECTED)


def name_in_group(column: str, group: str) -> str:
    """Return what a feature of a group of entities is called."""
    return f"{column}[{group}]"


@dataclass(frozen=True)
class ErrorDrift:
    """Served errors against the reference error of the production pair.

    Attributes:
        predictions: served forecasts for the recent time steps whose truth is known by now. What stood in for one, or
            was made from less than `observation.min_observed` of its lookback, is no error of the model.
        recent: mean absolute error of those, None where there are too few.
        reference: mean absolute error of the pair on its reference set; None for tabular tasks, whose served errors are
            not followed.
        evidence, evidence_limit: the sequential test of the live error (`live_error`) and where it alarms; `None` where
            it has not been made.
    """

    predictions: int
    recent: float | None
    reference: float | None
    ratio_limit: float
    evidence: float | None = None
    evidence_limit: float | None = None

    @property
    def has_risen(self) -> bool:
        """Whether the sequential test says so."""
        return self.evidence is not None and self.evidence_limit is not None and self.evidence >= self.evidence_limit

    @property
    def is_drifted(self) -> bool:
        """Whether the recent error exceeds the reference error by more than the configured ratio, or has risen."""
        if self.has_risen:
            return True
        if self.recent is None or self.reference is None:
            return False
        return self.recent > self.ratio_limit * self.reference


@dataclass(frozen=True)
class DriftReport:
    """What was compared and what drifted.

    Attributes:
        pair_version: the production pair the report is about.
        data_until: newest time stamp of the recent rows, ISO 8601.
        quality: what is broken; while anything is, nothing should be trained.
        day: the day in UTC by whose end the rows were there, ISO 8601; empty in reports of earlier versions.
        groups: entities, or groups of them, with a feature that is not steady, the surest first.
        notes: what was not looked for, and why.
        rows: how many there were in all; `None` for time series, and in reports of earlier versions.
    """

    experiment: str
    pair_version: int
    split_version: str
    data_until: str
    features: tuple[FeatureDrift, ...]
    errors: ErrorDrift
    created_at: str
    quality: tuple[QualityBreak, ...] = ()
    day: str = ""
    groups: tuple[GroupDrift, ...] = ()
    notes: tuple[str, ...] = ()
    rows: int | None = None

    @property
    def about(self) -> str:
        """The day in UTC that the report is about, ISO 8601: by default the one it was made on."""
        return self.day or dt.datetime.fromisoformat(self.created_at).astimezone(dt.UTC).date().isoformat()

    @property
    def is_broken(self) -> bool:
        """Whether something is wrong with the data themselves."""
        return bool(self.quality)

    @property
    def suspects(self) -> tuple[str, ...]:
        """The features that this report alone would raise an alarm for, and those of groups where they would not."""
        whole = tuple(drift.column for drift in self.features if drift.is_suspected)
        return (*whole, *(each.name for each in self.groups if each.is_suspected and each.column not in whole))

    @property
    def is_drifted(self) -> bool:
        """Whether anything drifted."""
        return bool(self.causes)

    @property
    def causes(self) -> tuple[str, ...]:
        """What drifted: `feature:<column>`, of groups alone `feature:<column>[<group>]`, and `errors`."""
        whole = [drift.column for drift in self.features if drift.is_drifted]
        alone = [each.name for each in self.groups if each.is_drifted and each.column not in whole]
        return (*(f"feature:{name}" for name in (*whole, *alone)), *(["errors"] if self.errors.is_drifted else []))

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> DriftReport:
        """Rebuild a report from JSON; what a later version added is left out.

        Raises:
            ValueError, OverflowError: if it is none.
        """
        report = parsed(text, cls)
        for time in (report.created_at, report.data_until):
            moment(time)
        if report.day:
            dt.date.fromisoformat(report.day)
        return report
