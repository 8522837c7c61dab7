"""The drift report: recent features and served errors against what training saw.

Two lists: what has drifted, a reason to train again, and what is broken in the data, which is none. Every verdict is
calibrated on the training rows themselves (`calibration`); thresholds from textbooks assume independent observations
and fire on every autocorrelated series.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import TIMESTAMP, ExperimentConfig
from mlplatform.datamodule import to_utc_ns
from mlplatform.monitoring.blocks import MISSING, Blocks, cut_blocks, cut_table
from mlplatform.monitoring.evidence import Evidence, Judge
from mlplatform.monitoring.groups import Groups, ask_groups
from mlplatform.monitoring.quality import (
    freshness_breaks,
    late_breaks,
    missing_breaks,
    number_breaks,
    schema_breaks,
    swapped_by_correlation,
)
from mlplatform.monitoring.questions import (
    ALL_FEATURES,
    LEVEL,
    Finding,
    ask_beside,
    ask_category,
    ask_correlation,
    ask_number,
    findings,
    newest_only,
)
from mlplatform.monitoring.report import (
    BROKEN,
    DRIFT,
    NOVEL_SEASON,
    SHORT,
    STEADY,
    SUSPECTED,
    TREND,
    DriftReport,
    ErrorDrift,
    FeatureDrift,
    GroupDrift,
    QualityBreak,
    name_in_group,
)
from mlplatform.monitoring.statistics import (
    category_distances,
    category_shares,
    level,
    missing_share,
    standardise,
)
from mlplatform.plugins import DRIFT_TESTS

Floats = npt.NDArray[np.float64]

# Stretches of the training rows that the shown threshold is taken from, at most; more sharpen it no further.
CALIBRATION_STRETCHES = 60
# Values per sample that a distance is computed on, at most.
SAMPLE = 4_000
# A suspicion is drift at once where its adjusted p-value is below this part of the false-alarm rate.
AT_ONCE = 0.05
# Features of groups that a report lists, at most.
MOST_GROUPS = 100
# Below this many years of training rows a season may come that they do not hold.
A_YEAR = 0.9


def build_report(
    config: ExperimentConfig,
    pair_version: int,
    train: pd.DataFrame,
    history: pd.DataFrame,
    errors: ErrorDrift,
    *,
    previous: DriftReport | None = None,
    now: dt.datetime | None = None,
) -> DriftReport:
    """Compare the newest rows of `history` with the training rows.

    Parameters:
        config: the configuration of the production pair.
        train: training rows of its split version.
        history: all rows up to now, in canonical form.
        errors: what is known of the pair's live error (`error_drift`).
        previous: the report before, which a change may have been suspected in already.
        now: the moment by whose knowledge the report is made, which is about its day; by default, the clock's.
    """
    made_at = dt.datetime.now(dt.UTC)
    now = now or made_at
    recent = _recent(config, history)
    report = DriftReport(
        experiment=config.name,
        pair_version=pair_version,
        split_version=config.split.version_id,
        data_until=recent[TIMESTAMP].max().isoformat(),
        features=(),
        errors=errors,
        created_at=made_at.isoformat(timespec="microseconds"),
        day=now.astimezone(dt.UTC).date().isoformat(),
        rows=None if config.task == "forecast" else len(history),
    )
    look = _Look.at(config, train, history)
    quality = _quality(config, look, history, now)
    broken = {name for each in quality for name in each.columns}
    judge, standards = Judge(look.blocks), look.standards(broken)
    groups = Groups.of(config.drift, look.blocks)
    of_groups = ask_groups(judge, groups, standards, look.sound_codes(broken), config.drift.min_effect)
    found = findings(look.evidence(judge, standards, broken), config.drift.false_alarm_rate, of_groups)
    if ALL_FEATURES in found and found[ALL_FEATURES].kinds:
        quality += swapped_by_correlation(look.blocks, look.numbers)
    stretch_of = _stretches(config, train)
    features = [_feature_drift(config, name, train, recent, look, stretch_of) for name in (*look.numbers, *look.codes)]
    if ALL_FEATURES in found:
        features.append(FeatureDrift(ALL_FEATURES, 0.0, float("inf")))
    broken |= {name for each in quality for name in each.columns}
    judged = [
        _verdict(config, report, feature, look.blocks, found, broken | ({ALL_FEATURES} if broken else set()), previous)
        for feature in features
    ]
    apart = _groups(config, report, groups, look.blocks, of_groups, found, previous)
    notes = (groups.why_none,) if groups.why_none else ()
    return replace(report, features=tuple(judged), quality=tuple(quality), groups=apart, notes=notes)


@dataclass(frozen=True)
class Course:
    """The level of a numeric feature, block after block, without its season and in standard deviations of the training.

    Attributes:
        times: of shape (blocks,), datetime64[ns] in UTC: when a block ends; `None` for rows of tables.
        levels, is_training, is_recent: of shape (blocks,).
        low, high: between which the mean of the recent ones lies in 95 of 100 cases while nothing has changed; NaN
            where the history is too short to say.
    """

    column: str
    times: npt.NDArray[np.datetime64] | None
    levels: Floats
    is_training: npt.NDArray[np.bool_]
    is_recent: npt.NDArray[np.bool_]
    low: float
    high: float


def feature_courses(config: ExperimentConfig, train: pd.DataFrame, history: pd.DataFrame) -> list[Course]:
    """Return the courses of the numeric features that a report on the same rows judges."""
    look = _Look.at(config, train, history)
    blocks, judge, courses = look.blocks, Judge(look.blocks), []
    is_recent = np.zeros(blocks.count, dtype=bool)
    is_recent[blocks.recent] = True
    times = None
    if blocks.newest is not None and blocks.days is not None:
        back = np.arange(blocks.count)[::-1] * pd.Timedelta(days=blocks.days).to_timedelta64()
        times = np.asarray(blocks.newest.tz_localize(None).to_datetime64() - back, dtype="datetime64[ns]")
    for name, values in look.numbers.items():
        levels = level(standardise(values, blocks))
        found = judge.mean_of_blocks(name, LEVEL, levels, config.drift.min_effect)
        low, high = found.expected - found.width, found.expected + found.width
        courses.append(Course(name, times, levels, blocks.is_training, is_recent, low, high))
    return courses


def _recent_start(config: ExperimentConfig, history: pd.DataFrame) -> pd.Timestamp:
    return config.dataset.calendar.moment(history[TIMESTAMP].max(), -config.drift.recent_steps)


def _recent(config: ExperimentConfig, history: pd.DataFrame) -> pd.DataFrame:
    """Return the newest `recent_steps` of the history (tabular: its newest rows)."""
    if config.task != "forecast":
        return history.tail(config.drift.recent_steps)
    recent: pd.DataFrame = history.loc[history[TIMESTAMP] > _recent_start(config, history)]
    return recent


@dataclass(frozen=True)
class _Look:
    """The features of an experiment in blocks; codes are of shape (blocks, steps, entities)."""

    config: ExperimentConfig
    blocks: Blocks
    numbers: Mapping[str, Floats]
    codes: Mapping[str, tuple[npt.NDArray[np.int64], int]]

    @classmethod
    def at(cls, config: ExperimentConfig, train: pd.DataFrame, history: pd.DataFrame) -> _Look:
        if config.task == "forecast":
            blocks = cut_blocks(train, history, config.dataset, config.drift.recent_steps)
        else:
            blocks = cut_table(train, history, config.drift.recent_steps)
        columns = [name for name in config.features.columns if name in history.columns and name in train.columns]
        is_number = {name: config.dataset.columns[name].type == "float" for name in columns}
        codes = {}
        for name in columns:
            if not is_number[name]:
                of_rows, categories = blocks.categories(name)
                codes[name] = (of_rows, len(categories))
        return cls(config, blocks, {name: blocks.numbers(name) for name in columns if is_number[name]}, codes)

    def standards(self, broken: set[str]) -> dict[str, Floats]:
        """Return the standardised values of numeric features that are not broken."""
        return {name: standardise(values, self.blocks) for name, values in self.numbers.items() if name not in broken}

    def sound_codes(self, broken: set[str]) -> dict[str, tuple[npt.NDArray[np.int64], int]]:
        """Return codes and numbers of categories of categorical features that are not broken."""
        return {name: each for name, each in self.codes.items() if name not in broken}

    def evidence(self, judge: Judge, standards: Mapping[str, Floats], broken: set[str]) -> list[Evidence]:
        """Return the answers to all questions about features that are not broken."""
        drift = self.config.drift
        distance: Callable[[Any, Any], float] = DRIFT_TESTS.get(drift.test)
        found: list[Evidence] = []
        for name, standard in standards.items():
            found += ask_number(judge, name, standard, distance, drift.min_effect)
        for name, (codes, categories) in self.sound_codes(broken).items():
            found += ask_category(judge, name, codes, categories)
        found += ask_beside(judge, standards, drift.min_effect)
        return found + ask_correlation(judge, list(standards.values()))


def _quality(config: ExperimentConfig, look: _Look, history: pd.DataFrame, now: dt.datetime) -> list[QualityBreak]:
    """Return what is broken, each column's first fault alone."""
    found = schema_breaks(config.features.columns, list(history.columns))
    found += freshness_breaks(look.blocks, config.staleness.refused_beyond, now)
    present = dict(look.numbers)
    present |= {name: np.where(codes == MISSING, np.nan, 0.0) for name, (codes, _) in look.codes.items()}
    shares = {name: missing_share(values, look.blocks) for name, values in present.items()}
    judge = Judge(newest_only(look.blocks))
    missing = missing_breaks(judge, shares, config.drift.min_missing)
    gone = {name for each in missing for name in each.columns}
    rest = {name: values for name, values in look.numbers.items() if name not in gone}
    broken = number_breaks(judge, rest)
    named = {name for each in broken for name in each.columns}
    late = late_breaks(look.blocks, {name: values for name, values in rest.items() if name not in named})
    return [*found, *missing, *broken, *late]


def _verdict(
    config: ExperimentConfig,
    report: DriftReport,
    feature: FeatureDrift,
    blocks: Blocks,
    found: Mapping[str, Finding],
    broken: set[str],
    previous: DriftReport | None,
) -> FeatureDrift:
    """Return a feature with its status."""
    if feature.column in broken:
        return replace(feature, status=BROKEN)
    finding = found[feature.column]
    if not np.isfinite(finding.q):
        return replace(feature, status=SHORT)
    before = [] if previous is None else [each for each in previous.features if each.column == feature.column]
    status, since = _status(config, report, finding, blocks, before, previous)
    return replace(feature, kinds=finding.kinds, q=finding.q, status=status, suspected_since=since)


def _groups(
    config: ExperimentConfig,
    report: DriftReport,
    groups: Groups,
    blocks: Blocks,
    evidence: Sequence[Evidence],
    found: Mapping[str, Finding],
    previous: DriftReport | None,
) -> tuple[GroupDrift, ...]:
    """Return the features of groups that are not steady, the surest first."""
    changes = {each.column: each.change for each in evidence if each.kind == LEVEL}
    known = {} if previous is None else {each.name: [each] for each in previous.groups}
    judged = []
    for column in config.features.columns:
        for group in groups.names:
            name = name_in_group(column, group)
            finding = found.get(name)
            if finding is not None and finding.kinds:
                status, since = _status(config, report, finding, blocks, known.get(name, []), previous)
                change = changes.get(name, 0.0)
                judged.append(GroupDrift(column, group, status, finding.kinds, finding.q, change, since))
    return tuple(sorted(judged, key=lambda each: each.q)[:MOST_GROUPS])


def _status(
    config: ExperimentConfig,
    report: DriftReport,
    finding: Finding,
    blocks: Blocks,
    before: Sequence[FeatureDrift | GroupDrift],
    previous: DriftReport | None,
) -> tuple[str, str | None]:
    """Return the status of what was found, and since when it has been suspected.

    Parameters:
        before: what the report before said of the same; empty if it said nothing.
    """
    if not finding.kinds:
        return STEADY, None
    if finding.is_slow:
        slow = TREND if blocks.years >= A_YEAR else NOVEL_SEASON
        # A change that came slowly matters once the forecasts suffer.
        return (DRIFT if report.errors.is_drifted else slow), None
    is_same_pair = previous is not None and previous.pair_version == report.pair_version
    # Since the first report of the unbroken row of those on this pair that suspect it.
    since = next((each.suspected_since for each in before if is_same_pair and each.is_suspected), None)
    since = since or report.data_until
    is_old = False
    if config.task == "forecast":
        waited = config.dataset.calendar.count(pd.Timestamp(since), pd.Timestamp(report.data_until))
        is_old = waited >= config.drift.recent_steps
    is_sure = finding.q <= AT_ONCE * config.drift.false_alarm_rate or report.errors.is_drifted
    return (DRIFT if is_old or is_sure else SUSPECTED), since


def _feature_drift(
    config: ExperimentConfig,
    column: str,
    train: pd.DataFrame,
    recent: pd.DataFrame,
    look: _Look,
    stretch_of: npt.NDArray[np.int64],
) -> FeatureDrift:
    """Return a feature's distance beside what stretches of the training rows show."""
    if column in look.codes:
        return _category_distance(config, column, look)
    distance: Callable[[Any, Any], float] = DRIFT_TESTS.get(config.drift.test)
    generator = np.random.default_rng(config.seed)
    values = train[column].to_numpy(dtype=np.float64)
    new = _thin(_finite(recent[column].to_numpy(dtype=np.float64)), generator)
    if not len(new):
        return FeatureDrift(column, float("inf"), 0.0)
    background = _thin(_finite(values), generator)
    parts = [_finite(values[stretch_of == number]) for number in range(int(stretch_of.max(initial=-1)) + 1)]
    calibration = [distance(background, _thin(part, generator)) for part in parts if len(part)]
    threshold = float(np.quantile(calibration, config.drift.quantile)) if calibration else float("inf")
    return FeatureDrift(column, distance(background, new), threshold)


def _category_distance(config: ExperimentConfig, column: str, look: _Look) -> FeatureDrift:
    codes, categories = look.codes[column]
    distances = category_distances(category_shares(codes, categories), look.blocks)
    trained = _finite(distances[look.blocks.is_training])
    threshold = float(np.quantile(trained, config.drift.quantile)) if len(trained) else float("inf")
    return FeatureDrift(column, float(np.nan_to_num(distances[-1])), threshold)


def _stretches(config: ExperimentConfig, train: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return of every training row, in which of the stretches it is that are as long as the recent rows; -1 for none.

    Of tables these are consecutive rows, of series the newest comes first.
    """
    size = config.drift.recent_steps
    if config.task != "forecast":
        whole, number = len(train) // size, np.arange(len(train)) // size
        numbers = np.where(number < whole, number - max(whole - CALIBRATION_STRETCHES, 0), -1)
        return np.maximum(numbers, -1)
    calendar, newest = config.dataset.calendar, train[TIMESTAMP].max()
    number = calendar.steps(to_utc_ns(train[TIMESTAMP]).astype(np.int64), newest.as_unit("ns").value) // size
    whole = calendar.count(train[TIMESTAMP].min(), newest) // size
    return np.where(number < min(whole, CALIBRATION_STRETCHES), number, -1)


def _finite(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values[np.isfinite(values)]


def _thin(values: npt.NDArray[np.float64], generator: np.random.Generator) -> npt.NDArray[np.float64]:
    return values if len(values) <= SAMPLE else generator.choice(values, SAMPLE, replace=False)
