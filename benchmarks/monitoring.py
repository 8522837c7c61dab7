"""Drift reports that can be believed: false alarms on series in which nothing changed, and how soon changes are found.

Series are simulated hour by hour; a report compares the newest week with 12 weeks or a year of training rows, by the
shipped settings.

False alarms: the share of single reports, on the week right after the training rows, that suspect anything or call
anything broken; beside a two-sample Kolmogorov-Smirnov test at 5 % per feature, the usual default of drift dashboards,
and beside Evidently's defaults where it is installed. What is called a trend or a novel season is no alarm.

Found changes: a year of training rows and a week without change; then one of several features of AR(.9) with daily and
weekly season changes (two change places). What breaks data should be found within the first three daily reports. A
change of the world is found by the first three, or by three reports on a window that is all new: a day after a shift of
one standard deviation, the mean of the recent week has moved by a seventh of it.

Beside a shift of the mean stands the limit: how often the best tests there are would find it, on the same series and
with as many false alarms. One knows how long each series remembers and how they hang together, and judges the mean of
what it saw since the change; the other also knows the level of before, so that the jump itself counts.

Concept: what features mean for a target changes, and they themselves do not (`monitoring_core.concept`); found by the
live error of the forecasts alone.

Looks: daily reports over a year on series in which nothing changed, and how often drift, beyond suspicion, begins.

Entities: the share of single reports on many entities in which nothing changed that suspect anything, and how often one
entity of many that shifts by two standard deviations is named, and no other.

Scale: seconds and peak memory of a report on a thousand entities, and on a thousand features, in a process of its own.

Coverage: what share of truths lies in intervals of nominal 80 %, week by week, when the volatility of an AR(.9) series
doubles, with intervals that stay as they were calibrated and with those that adapt; hourly forecasts of 6 steps.

Run as `python benchmarks/monitoring.py [part ...] [--series N] [--looks N] [--features N ...] [--changes NAME ...]`;
parts are `null`, `detection`, `concept`, `looks`, `entities`, `scale` and `coverage`. By default a few series of
`null`, `detection` and `coverage`; figures to quote want all of them and `--series 500 --looks 100 --features 1 7 50`,
a night. With `--kept FILE` what single series of `null`, `detection` and `concept` gave is kept there, and a run that
was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from figures import report
from monitoring_core.concept import alarms_after
from scipy.signal import lfilter
from scipy.stats import ks_2samp, norm

from mlplatform.config import ENTITY, TIMESTAMP, AdaptationConfig, ExperimentConfig, load_experiment
from mlplatform.monitoring import DriftReport, ErrorDrift, build_report
from mlplatform.monitoring.adaptation import adapt

Floats = npt.NDArray[np.float64]

WEEK, YEAR = 168, 8766
TRAINING = {"12 weeks": 12 * WEEK, "a year": 52 * WEEK}
FALSE_ALARMS, FOUND, LOOKS_PER_YEAR = 0.05, 0.9, 1.0
FIRST_REPORTS, FULL_REPORTS = (24, 48, 72), (168, 192, 216)
CATEGORY = "mode"
# Memory of the series that change, the change whose limit is known, and the limits: whether one knows its moment.
MEMORY, SHIFT = 0.9, "mean + 1 sigma"
LIMITS = {"knows memory and correlations": False, "knows the moment, too": True}
PARTS = ("null", "detection", "concept", "looks", "entities", "scale", "coverage")
DEFAULT_PARTS = ("null", "detection", "coverage")
# Entities, hours of training rows, hours after them, and features.
SIZES = {
    "1000 entities x 30 days x 10 features": (1000, 23 * 24, WEEK, 10),
    "1000 features x 100000 rows": (1, 100_000 - WEEK, WEEK, 1000),
}


def noise(generator: np.random.Generator, memory: float, steps: int, features: int) -> Floats:
    """Return stationary AR(1) series of unit variance, of shape (steps, features)."""
    shocks = generator.standard_normal((steps + 1500, features)) * np.sqrt(1 - memory**2)
    return np.asarray(lfilter([1.0], [1.0, -memory], shocks, axis=0)[1500:])


def wave(generator: np.random.Generator, period: float, steps: int, features: int) -> Floats:
    """Return sines of unit amplitude, each with a phase of its own."""
    phase = generator.uniform(0, 2 * np.pi, features)
    return np.asarray(np.sin(2 * np.pi * np.arange(steps)[:, None] / period + phase))


def seasonal(generator: np.random.Generator, steps: int, features: int) -> Floats:
    """Return AR(.9) with a daily and a weekly season."""
    daily, weekly = wave(generator, 24, steps, features), wave(generator, WEEK, steps, features)
    return noise(generator, 0.9, steps, features) + 1.5 * daily + weekly


def counts(generator: np.random.Generator, steps: int, features: int) -> Floats:
    """Return counts whose rate has memory and a daily season."""
    rate = np.exp(0.5 * noise(generator, 0.9, steps, features) + wave(generator, 24, steps, features))
    return generator.poisson(rate).astype(np.float64)


Simulation = Callable[[np.random.Generator, int, int], Floats]
NULLS: dict[str, Simulation] = {
    "white noise": lambda g, n, k: noise(g, 0.0, n, k),
    "AR(.9)": lambda g, n, k: noise(g, 0.9, n, k),
    "AR(.97)": lambda g, n, k: noise(g, 0.97, n, k),
    "AR(.99)": lambda g, n, k: noise(g, 0.99, n, k),
    "daily and weekly season": seasonal,
    "yearly season": lambda g, n, k: noise(g, 0.9, n, k) + 1.5 * wave(g, YEAR, n, k),
    "counts": counts,
    "slow trend": lambda g, n, k: noise(g, 0.9, n, k) + 2.0 * np.arange(n)[:, None] / YEAR,
}


class Kept:
    """What single series gave, kept in a file if one is named, so that a run may be cut off and go on.

    Parameters:
        path: of a file of JSON lines.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self._found: dict[str, Any] = dict(json.loads(line) for line in lines)

    def of(self, key: Sequence[object], make: Callable[[], Any]) -> Any:
        """Return what a series gave: as it is kept, or made now."""
        name = json.dumps(list(key))
        if name not in self._found:
            self._found[name] = make()
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps([name, self._found[name]]) + "\n")
        return self._found[name]


@dataclass(frozen=True)
class Bench:
    """The experiment whose features are judged, by the shipped settings."""

    base: ExperimentConfig

    def config(self, features: int, *, category: bool = False) -> ExperimentConfig:
        """Return the experiment with so many numeric features `x0`, `x1`, ..."""
        columns = {f"x{number}": self.base.dataset.columns["load_pu"] for number in range(features)}
        if category:
            columns[CATEGORY] = self.base.dataset.columns["cooling"]
        dataset = self.base.dataset.model_copy(update={"columns": columns})
        chosen = self.base.features.model_copy(update={"columns": tuple(columns)})
        return self.base.model_copy(update={"dataset": dataset, "features": chosen, "targets": ("x0",)})

    def report(
        self, rows: pd.DataFrame, trained: int, until: int, previous: DriftReport | None = None, *, features: int
    ) -> DriftReport:
        """Return the report on the rows up to a step."""
        nothing_served = ErrorDrift(0, None, None, self.base.drift.error_ratio)
        config = self.config(features, category=CATEGORY in rows)
        return build_report(config, 1, rows.iloc[:trained], rows.iloc[:until], nothing_served, previous=previous)

    def report_before(self, rows: pd.DataFrame, border: pd.Timestamp, *, features: int) -> DriftReport:
        """Return the report on all rows whose training rows lie before a moment."""
        nothing_served = ErrorDrift(0, None, None, self.base.drift.error_ratio)
        return build_report(self.config(features), 1, rows[rows[TIMESTAMP] < border], rows, nothing_served)


def frame(values: Floats, categories: npt.NDArray[np.str_] | None = None) -> pd.DataFrame:
    """Return series as rows of one entity in canonical form."""
    columns: dict[str, object] = {
        ENTITY: np.ones(len(values), dtype=np.int64),
        TIMESTAMP: pd.date_range("2023-03-06", periods=len(values), freq="1h", tz="UTC"),
    }
    columns |= {f"x{number}": values[:, number] for number in range(values.shape[1])}
    return pd.DataFrame(columns if categories is None else columns | {CATEGORY: categories})


def measure_null(bench: Bench, series: int, numbers: Sequence[int], kept: Kept) -> None:
    """Report the share of single reports that raise a false alarm, of every kind of series."""
    evidently = _evidently()

    def look(kind: str, trained: int, features: int, number: int) -> list[bool]:
        generator = np.random.default_rng([features, trained, list(NULLS).index(kind), number])
        values = NULLS[kind](generator, trained + WEEK, features)
        rows = frame(values)
        found = bench.report(rows, trained, len(rows), features=features)
        peers = [_textbook(values[:trained], values[trained:])]
        if evidently:
            peers.append(evidently(rows.iloc[:trained, 2:], rows.iloc[trained:, 2:]))
        return [bool(found.suspects or found.quality), *peers]

    for features in numbers:
        # Fifty features are fifty series.
        reports = max(series if features < 50 else series // 5, 1)
        for length, trained in TRAINING.items():
            for kind in NULLS:
                alarms = np.array(
                    [
                        kept.of(
                            ("null", kind, trained, features, number), partial(look, kind, trained, features, number)
                        )
                        for number in range(reports)
                    ]
                )
                case = f"false alarms: {kind}, {length} of training, {features} features, of {reports} reports"
                share, aim = float(alarms[:, 0].mean()), f"<= {FALSE_ALARMS:g}"
                for name, peer in zip(("KS p<.05", "Evidently"), alarms[:, 1:].T, strict=False):
                    peer_value = float(peer.mean())
                    met = share <= FALSE_ALARMS
                    report("monitoring", case, share, "share", peer=name, peer_value=peer_value, aim=aim, met=met)


def _textbook(trained: Floats, recent: Floats) -> bool:
    return any(ks_2samp(trained[:, each], recent[:, each]).pvalue < 0.05 for each in range(trained.shape[1]))


def _evidently() -> Callable[[pd.DataFrame, pd.DataFrame], bool] | None:
    """Return Evidently's verdict by its defaults, whether any column drifted; `None` where it is not installed.

    By the number of rows it takes a test or a distance, each with a threshold of its own, so it is asked what it finds.
    """
    try:
        from evidently import Report
        from evidently.metrics import DriftedColumnsCount
    except ImportError:
        return None

    def judge(trained: pd.DataFrame, recent: pd.DataFrame) -> bool:
        (found,) = Report([DriftedColumnsCount()]).run(recent, trained).dict()["metrics"]
        return bool(found["value"]["count"])

    return judge


@dataclass(frozen=True)
class Change:
    """A change of the last rows, and what a report that has found it says.

    Attributes:
        apply: changes the rows from a step on, in place.
        finds: whether a report has found it.
        breaks_data: whether it is a fault of the data and no change of the world.
    """

    apply: Callable[[pd.DataFrame, int, np.random.Generator], None]
    finds: Callable[[DriftReport], bool]
    breaks_data: bool = False


def _alarm(report: DriftReport) -> bool:
    return bool(report.suspects)


def _broken(kind: str) -> Callable[[DriftReport], bool]:
    return lambda report: any(each.kind == kind for each in report.quality)


def _shift(size: float) -> Callable[[pd.DataFrame, int, np.random.Generator], None]:
    def apply(rows: pd.DataFrame, start: int, _: np.random.Generator) -> None:
        rows.loc[start:, "x1"] += size

    return apply


def _double_variance(rows: pd.DataFrame, start: int, _: np.random.Generator) -> None:
    rows.loc[start:, "x1"] *= np.sqrt(2.0)


def _lose(rows: pd.DataFrame, start: int, generator: np.random.Generator) -> None:
    lost = start + np.flatnonzero(generator.random(len(rows) - start) < 0.3)
    rows.loc[lost, "x1"] = np.nan


def _other_unit(rows: pd.DataFrame, start: int, _: np.random.Generator) -> None:
    rows.loc[start:, "x1"] = rows.loc[start:, "x1"] * 1.8 + 32.0


def _stick(rows: pd.DataFrame, start: int, _: np.random.Generator) -> None:
    rows.loc[start:, "x1"] = rows.loc[start, "x1"]


def _swap(rows: pd.DataFrame, start: int, _: np.random.Generator) -> None:
    rows.loc[start:, ["x1", "x2"]] = rows.loc[start:, ["x2", "x1"]].to_numpy()


def _new_category(rows: pd.DataFrame, start: int, generator: np.random.Generator) -> None:
    new = start + np.flatnonzero(generator.random(len(rows) - start) < 0.1)
    rows.loc[new, CATEGORY] = "unheard of"


def _later_peak(rows: pd.DataFrame, start: int, _: np.random.Generator) -> None:
    hours = np.arange(len(rows))[start:]
    rows.loc[start:, "x1"] += 1.5 * (np.sin(2 * np.pi * (hours - 6) / 24) - np.sin(2 * np.pi * hours / 24))


CHANGES: dict[str, Change] = {
    "nothing": Change(lambda *_: None, lambda report: _alarm(report) or report.is_broken),
    SHIFT: Change(_shift(1.0), _alarm),
    "mean + 2 sigma": Change(_shift(2.0), _alarm),
    "variance x 2": Change(_double_variance, _alarm),
    "missing 0 to 30 %": Change(_lose, _broken("missing"), breaks_data=True),
    "unit (°F for °C)": Change(_other_unit, _broken("unit"), breaks_data=True),
    "stuck sensor": Change(_stick, _broken("stuck"), breaks_data=True),
    "swapped columns": Change(_swap, _broken("swapped"), breaks_data=True),
    "unseen category": Change(_new_category, _alarm),
    "daily peak 6 h later": Change(_later_peak, _alarm),
}


def measure_detection(bench: Bench, series: int, names: Sequence[str], kept: Kept) -> None:
    """Report the share of changes that are found within three reports, and after how many hours."""
    trained = TRAINING["a year"]
    for name in names:
        change, is_shift = CHANGES[name], name == SHIFT
        for features in (2, 7) if name in ("nothing", SHIFT) else (7,):
            found = [
                kept.of(
                    ("detection", name, features, number),
                    partial(_found_after, bench, name, trained, features, number),
                )
                for number in range(series)
            ]
            hours = [set(each["ours"]) for each in found]
            case = f"{name}, {features} features, of {series} series"
            for reports, what in ((FIRST_REPORTS, "the first three daily reports"), (FULL_REPORTS, "a full new week")):
                if change.breaks_data and reports == FULL_REPORTS:
                    continue
                is_aim = name != "nothing" and (change.breaks_data or reports == FULL_REPORTS)
                for peer in LIMITS if is_shift else (None,):
                    share = sum(bool(each & set(reports)) for each in hours) / series
                    limit = sum(bool(set(each[peer]) & set(reports)) for each in found) / series if peer else None
                    aim, met = (f">= {FOUND:g}", share >= FOUND) if is_aim else (None, None)
                    what_found = f"found within {what}: {case}"
                    report("monitoring", what_found, share, "share", peer=peer, peer_value=limit, aim=aim, met=met)
            first = [min(each) for each in hours if each]
            if first:
                report("monitoring", f"median time to the first alarm: {case}", float(np.median(first)), "h")


def _found_after(bench: Bench, name: str, trained: int, features: int, number: int) -> dict[str, list[int]]:
    """Return how many hours after a change of a series it is found, by our reports and by the best tests of a shift."""
    change, generator = CHANGES[name], np.random.default_rng([features, list(CHANGES).index(name), number])
    start = trained + WEEK
    steps = start + FULL_REPORTS[-1]
    common = noise(generator, MEMORY, steps, 1)
    own = noise(generator, MEMORY, steps, features)
    # Features hang together, each with a level, a scale and a daily peak of its own where columns are told apart.
    weight = np.linspace(0.2, 0.8, features)
    chance = np.sqrt(weight) * common + np.sqrt(1 - weight) * own
    values = chance + 1.5 * np.sin(2 * np.pi * np.arange(steps)[:, None] / 24) + wave(generator, WEEK, steps, features)
    values += 3.0 * np.arange(features)
    modes = np.where(generator.random(steps) < 0.3, "on", "off")
    rows = frame(values, modes)
    change.apply(rows, start, generator)
    looks = FIRST_REPORTS if change.breaks_data else (*FIRST_REPORTS, *FULL_REPORTS)
    reports = {hours: bench.report(rows, trained, start + hours, features=features) for hours in looks}
    found = {"ours": [hours for hours, each in reports.items() if change.finds(each)]}
    if name == SHIFT:
        chance[start:, 1] += 1.0
        for limit, knows_moment in LIMITS.items():
            found[limit] = [hours for hours in looks if _best_test(chance, weight, start, hours, knows_moment)]
    return found


def _best_test(chance: Floats, weight: Floats, start: int, hours: int, knows_moment: bool) -> bool:
    """Return whether the likeliest shift of one of several AR series since a step is more than chance.

    By generalised least squares with the true memory and covariance, over all features by Bonferroni.

    Parameters:
        chance: the series without their seasons, of shape (steps, features), the shift in them.
        weight: of shape (features,), the share of each that all have in common.
        knows_moment: whether the values before the shift are known to be without it.
    """
    new = chance[start : start + hours]
    before = chance[start - 1 : start + hours - 1]
    shocks, pattern = new - MEMORY * before, np.full(hours, 1.0 - MEMORY)
    if knows_moment:
        pattern[0] = 1.0
    else:
        # The first value is drawn from all that a series may be.
        shocks[0], pattern[0] = new[0] * np.sqrt(1 - MEMORY**2), np.sqrt(1 - MEMORY**2)
    together = np.sqrt(np.outer(weight, weight))
    np.fill_diagonal(together, 1.0)
    precision = np.linalg.inv(together) / (1 - MEMORY**2)
    z = precision @ (pattern @ shocks) / np.sqrt(np.diag(precision) * float(pattern @ pattern))
    return bool(np.abs(z).max() > norm.isf(FALSE_ALARMS / 2 / len(weight)))


def measure_concept(series: int, kept: Kept) -> None:
    """Report how often a change of what features mean is found by the live error, how soon, and how often by chance."""
    looks = (*FIRST_REPORTS, *FULL_REPORTS)
    alarms = {
        changes: [
            kept.of(("concept", changes, number), partial(alarms_after, (changes, number), looks, changes=changes))
            for number in range(series)
        ]
        for changes in (True, False)
    }
    case, aim = f"concept drift, of {series} series", f">= {FOUND:g}"
    hours = [set(after) for _, after in alarms[True]]
    for reports, what in ((FIRST_REPORTS, "the first three daily reports"), (FULL_REPORTS, "a full new week")):
        share = sum(bool(each & set(reports)) for each in hours) / series
        is_aim = reports == FULL_REPORTS
        aims = {"aim": aim, "met": share >= FOUND} if is_aim else {}
        report("monitoring", f"found within {what}: {case}", share, "share", **aims)
    first = [min(each) for each in hours if each]
    if first:
        report("monitoring", f"median time to the first alarm: {case}", float(np.median(first)), "h")
    share = sum(before or bool(after) for before, after in alarms[False]) / series
    report("monitoring", f"seven looks at the live error while nothing changes: alarms, of {series} series", share,
           "share", aim=f"<= {FALSE_ALARMS:g}", met=share <= FALSE_ALARMS)  # fmt: skip


def measure_looks(bench: Bench, years: int, numbers: Sequence[int]) -> None:
    """Report how often, in a year of daily reports on series in which nothing changed, drift begins."""
    trained = TRAINING["a year"]
    # A year of reports on fifty features takes a quarter of an hour.
    for features in (number for number in numbers if number < 50):
        for kind in ("AR(.9)", "AR(.99)", "daily and weekly season"):
            generator = np.random.default_rng([features, list(NULLS).index(kind)])
            begins = sum(
                _begins_in_a_year(bench, NULLS[kind](generator, trained + YEAR, features), trained)
                for _ in range(years)
            )
            case = f"drift begun per year of daily reports: {kind}, {features} features, {years} years"
            met = begins / years <= LOOKS_PER_YEAR
            report("monitoring", case, begins / years, "per year", aim=f"<= {LOOKS_PER_YEAR:g}", met=met)


def _begins_in_a_year(bench: Bench, values: Floats, trained: int) -> int:
    rows, previous, begins = frame(values), None, 0
    for until in range(trained + WEEK, len(rows), 24):
        now = bench.report(rows, trained, until, previous, features=values.shape[1])
        begins += now.is_drifted and not (previous is not None and previous.is_drifted)
        previous = now
    return begins


def fleet(generator: np.random.Generator, entities: int, steps: int, features: int) -> pd.DataFrame:
    """Return AR(.9) series of many entities, each with a daily season and a level of its own, as rows."""
    parts = []
    for entity in range(entities):
        rows = frame(noise(generator, 0.9, steps, features) + wave(generator, 24, steps, features) + entity % 7)
        parts.append(rows.assign(**{ENTITY: entity}))
    return pd.concat(parts, ignore_index=True)


def measure_entities(bench: Bench, reports: int) -> None:
    """Report false alarms on fleets without change, and how often the one entity that changes is named alone."""
    features = 3
    for entities in (10, 100):
        generator, trained = np.random.default_rng(entities), TRAINING["12 weeks"]
        alarms = named = 0
        for _ in range(reports):
            rows = fleet(generator, entities, trained + WEEK, features)
            border = rows[TIMESTAMP].min() + pd.Timedelta(hours=trained)
            alarms += bool(bench.report_before(rows, border, features=features).suspects)
            rows.loc[(rows[ENTITY] == 7) & (rows[TIMESTAMP] >= border), "x1"] += 2.0
            named += bench.report_before(rows, border, features=features).suspects == ("x1[7]",)
        case = f"{entities} entities, {features} features, of {reports} reports"
        share, found = alarms / reports, named / reports
        aim, met = f"<= {FALSE_ALARMS:g}", share <= FALSE_ALARMS
        report("monitoring", f"false alarms: {case}", share, "share", aim=aim, met=met)
        report("monitoring", f"the one that shifts by two sigma is named, and no other: {case}", found, "share",
               aim=f">= {FOUND:g}", met=found >= FOUND)  # fmt: skip


def measure_scale() -> None:
    """Report what a report on many entities, and on many features, costs in a process of its own."""
    for size in SIZES:
        command = [sys.executable, "-W", "ignore", __file__, "--size", size]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for name, figures in json.loads(done.stdout.splitlines()[-1]).items():
            report("monitoring", f"a report on {size}: {name}", *figures)


def report_of_size(bench: Bench, size: str) -> None:
    """Make one report, and print seconds and memory."""
    entities, trained, later, features = SIZES[size]
    rows = fleet(np.random.default_rng(0), entities, trained + later, features)
    before = _peak_mib()
    began = time.perf_counter()
    bench.report_before(rows, rows[TIMESTAMP].min() + pd.Timedelta(hours=trained), features=features)
    seconds = time.perf_counter() - began
    found = {"seconds": (seconds, "s"), "peak memory": (_peak_mib(), "MiB"), "of that, before it": (before, "MiB")}
    print(json.dumps(found))


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_coverage(series: int) -> None:
    """Report the coverage of each week before and after volatility doubles, with and without adaptation."""
    nominal, horizon, before, after = 0.8, 6, 4, 6
    policy = AdaptationConfig(step_size=0.02)
    generator = np.random.default_rng(0)
    inside: dict[str, list[Floats]] = {"adapted": [], "as calibrated": []}
    for _ in range(series):
        scores = _interval_scores(generator, horizon, before * WEEK, after * WEEK, nominal)
        adapted = adapt(scores, nominal, policy.step_size or 0.0, policy.window)
        inside["adapted"].append(scores[:, :, 0] <= adapted.path)
        inside["as calibrated"].append(scores[:, :, 0] <= 1.0)
    by_week = {
        name: np.mean(each, axis=0).reshape(before + after, WEEK, horizon).mean(axis=(1, 2))
        for name, each in inside.items()
    }
    for week, (share, peer) in enumerate(zip(by_week["adapted"], by_week["as calibrated"], strict=True)):
        when = f"week {week - before + 1} after" if week >= before else f"week {before - week} before"
        case = f"coverage of nominal 80 %, {when} volatility doubles, of {series} series"
        # The week of the change is the one that is learnt from.
        aim, met = ("0.8 +- 0.03", bool(abs(share - nominal) <= 0.03)) if week != before else (None, None)
        report(
            "monitoring", case, float(share), "share", peer="as calibrated", peer_value=float(peer), aim=aim, met=met
        )


def _interval_scores(generator: np.random.Generator, horizon: int, before: int, after: int, nominal: float) -> Floats:
    """Return scores of the best forecasts of an AR(.9) series, of shape (moments, horizon, 1); the last hours twice."""
    steps = before + after + horizon
    shocks = generator.standard_normal(steps) * np.where(np.arange(steps) < before + horizon, 1.0, 2.0)
    series = np.asarray(lfilter([1.0], [1.0, -0.9], shocks))
    ahead = np.arange(1, horizon + 1)
    usual = np.sqrt(np.cumsum(0.81 ** (ahead - 1))) * norm.ppf(0.5 + nominal / 2)
    moments = np.arange(horizon, steps)[:, None]
    errors = series[moments] - 0.9**ahead * series[moments - ahead]
    return np.asarray(np.abs(errors) / usual)[:, :, None]


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--series", type=int, default=4, help="series per kind")
    parser.add_argument("--looks", type=int, default=1, help="years of daily reports per kind")
    parser.add_argument("--features", type=int, nargs="*", default=[1, 7], help="features of a report without change")
    parser.add_argument("--changes", nargs="*", choices=[*CHANGES], default=[*CHANGES], help="changes to detect")
    parser.add_argument("--kept", type=Path, help="file of what single series gave, to go on from")
    parser.add_argument("--size", choices=SIZES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)
    bench = Bench(load_experiment("fleet_xgboost"))
    if asked.size:
        report_of_size(bench, asked.size)
        return
    chosen, kept = asked.part or DEFAULT_PARTS, Kept(asked.kept)
    if "null" in chosen:
        measure_null(bench, asked.series, asked.features, kept)
    if "detection" in chosen:
        measure_detection(bench, asked.series, asked.changes, kept)
    if "concept" in chosen:
        measure_concept(asked.series, kept)
    if "coverage" in chosen:
        measure_coverage(asked.series)
    if "entities" in chosen:
        measure_entities(bench, asked.series)
    if "scale" in chosen:
        measure_scale()
    if "looks" in chosen:
        measure_looks(bench, asked.looks, asked.features)


if __name__ == "__main__":
    main()
