"""What follows from a dataset's frequency where YAML leaves it open: season, lookback, horizon and lengths of folds,
the recent rows that drift is sought in, the age that is too old, and what is read of the calendar.

An open value is `null`, of an age `auto`. It is filled in before an experiment is checked, so that what was derived is
part of the configuration that every run stores. Not here: how steps are counted (`calendars`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlplatform.calendars import WORKING_DAYS, Calendar, CalendarError, Part, make_calendar, usual_parts
from mlplatform.config.found import AUTO, read_found

DAY_NS = 86_400 * 10**9
# Whose lengths an experiment has until the rows of the first ingest tell the frequency; nothing is trained before.
UNKNOWN = "1h"
WINDOW_STEPS = 720
# Steps that a window and the context of a part leave for preprocessing and the known future.
ROOM = 48
# Steps ahead where there is no season.
PLAIN_HORIZON = 6
# The longest season that is looked at, a day of half minutes: a row of an input per step, a model per step ahead and a
# stored window per entity grow with it. Steps so fine have an hour of seconds, and in its proportions, instead.
LONGEST_SEASON = 2880
FINE_HORIZON, FINE_LOOKBACK, FINE_BLOCK = 60, 600, 3600
# Rows that a decision needs, where a reference set has as many.
REFERENCE_ROWS = 20
# Folds of the split that `base/forecast` has.
FOLDS = 3
# Steps that the newest row may be late: it comes when its step is over, and is the newest until the next one has come.
LATE_STEPS = 3
# Steps of the longest season of which series are short: that of months.
LONGEST_SHORT = 12
HISTORY_SEASONS = 10
# Steps without which nothing is recent.
LEAST_RECENT = 2


@dataclass(frozen=True)
class Lengths:
    """Lengths in steps.

    Attributes:
        season: 1 where the frequency has none, or none of `LONGEST_SEASON` steps at most.
        lookback: a week, or some seasons.
        history: of months, quarters and years, whose series are short, ten seasons and at least twice the lookback:
            smoothing tells levels and seasons from all that is there. `None` for the lookback.
        horizon: a season.
        block: of the reference set and of every fold's validation rows: four weeks, or a season of months.
        max_age_ns: beyond which features are too old, in nanoseconds: a day, but no more than the horizon and no less
            than three steps; of business days a week, which holidays are shorter than.
    """

    season: int
    lookback: int
    horizon: int
    block: int
    max_age_ns: int = 0
    history: int | None = None

    @classmethod
    def of(cls, calendar: Calendar, horizon: int | None = None) -> Lengths:
        """Return the lengths for what counts the steps: a week of six working days has another season than one of five.

        Parameters:
            horizon: where it is given.
        """
        if calendar.seasons and calendar.seasons[0] > LONGEST_SEASON:
            ahead = horizon or FINE_HORIZON
            max_age = max(LATE_STEPS * calendar.nominal_ns, min(DAY_NS, ahead * calendar.nominal_ns))
            return cls(1, max(FINE_LOOKBACK, 2 * ahead), ahead, max(FINE_BLOCK, ahead), max_age)
        season, *longer = calendar.seasons or (1,)
        ahead = horizon or (season if calendar.seasons else PLAIN_HORIZON)
        is_short = calendar.nominal_ns < 2 * DAY_NS and calendar.seasons
        if not calendar.seasons:
            lookback = 2 * ahead
        elif is_short:
            # Seven seasons are a week of hours, or seven weeks of days; fewer where they outgrow the stored window.
            lookback = season * max(2, min(7, (WINDOW_STEPS - ROOM) // season))
        else:
            lookback = season * (3 if season <= 12 else 2)
        weeks = 28 * DAY_NS // calendar.nominal_ns
        block = weeks if is_short and longer else 4 * season if is_short else season
        late = LATE_STEPS * calendar.nominal_ns
        max_age = max(late, min(DAY_NS, ahead * calendar.nominal_ns))
        if DAY_NS < calendar.nominal_ns < 2 * DAY_NS:
            max_age = 7 * DAY_NS
        is_coarse = calendar.nominal_ns > 7 * DAY_NS and season <= LONGEST_SHORT
        history = max(HISTORY_SEASONS * season, 2 * lookback) if is_coarse else None
        return cls(season, lookback, ahead, max(int(block), ahead), max_age, history)

    @property
    def max_age(self) -> str:
        """The age beyond which features are too old, as `staleness.max_age` has it; of days and more in whole days."""
        if self.max_age_ns >= DAY_NS:
            return f"{-(-self.max_age_ns // DAY_NS)}D"
        seconds = -(-self.max_age_ns // 10**9)
        length, unit = next((size, unit) for size, unit in ((3600, "h"), (60, "min"), (1, "s")) if not seconds % size)
        return f"{seconds // length}{unit}"

    @classmethod
    def without_season(cls) -> Lengths:
        """Return the lengths of data that have no season, or too few of them to learn one."""
        return cls(1, 2 * PLAIN_HORIZON, PLAIN_HORIZON, PLAIN_HORIZON)

    def needed(self, folds: int) -> int:
        """Return the steps that a reference set, so many folds and a block to train on take up."""
        return (folds + 2) * self.block + self.lookback + 2 * self.horizon

    def within(self, steps: int) -> tuple[Lengths, int] | None:
        """Return lengths, and a number of folds, that a history of so many steps has room for; `None` if none has.

        What is shortened first costs least: the lookback down to a season, blocks, the number of folds, the horizon.
        """
        for horizon in _halved(self.horizon, 1):
            for folds in range(FOLDS, 0, -1):
                for block in _halved(max(self.block, horizon), horizon):
                    shortest = max(self.season, horizon)
                    for lookback in range(max(self.lookback, shortest), shortest - 1, -self.season):
                        found = replace(self, lookback=lookback, horizon=horizon, block=block)
                        if found.needed(folds) <= steps:
                            return found, folds
        return None


def _halved(length: int, least: int) -> Iterator[int]:
    """Yield a length, its half, the half of that, and so on, down to the least."""
    while length > least:
        yield length
        length = length // 2
    yield least


def fill_open(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the values of an experiment with what its dataset's frequency says in the place of `null`.

    Values of another shape than an experiment's, and frequencies that are none, are left for validation to refuse.
    """
    dataset = values.get("dataset")
    if values.get("task") != "forecast" or not isinstance(dataset, Mapping) or not dataset.get("frequency"):
        return values
    try:
        calendar = _calendar_of(dataset)
    except CalendarError:
        return values
    horizon = values.get("horizon")
    lengths = Lengths.of(calendar, horizon if isinstance(horizon, int) else None)
    found = {"lookback": lengths.lookback, "horizon": lengths.horizon}
    # In the mean over many series the largest would decide; scaled errors let every one count alike.
    filled = _filled(values, {**found, "metric": "mase" if dataset.get("entity_column") else "mae"})
    lookback = filled.get("lookback")
    if "history" in values and values["history"] is None:
        filled["history"] = _history(lengths, filled)
    window = max(WINDOW_STEPS, lookback + ROOM if isinstance(lookback, int) else 0)
    filled["dataset"] = {"window_steps": window, **dataset} if window > WINDOW_STEPS else dataset
    features = values.get("features")
    if isinstance(features, Mapping) and features.get("calendar") is not None:
        parts = usual_parts(calendar)
        filled["features"] = {**features, "calendar": _calendar(features["calendar"], parts, lengths.season)}
    split = values.get("split")
    if isinstance(split, Mapping):
        filled["split"] = _filled(split, {"reference_steps": lengths.block, "context_steps": window})
        cv = split.get("cv")
        if isinstance(cv, Mapping) and isinstance(cv.get("params"), Mapping):
            filled["split"]["cv"] = {**cv, "params": _filled(cv["params"], {"validation_steps": lengths.block})}
    found_reference = filled["split"].get("reference_steps") if isinstance(split, Mapping) else None
    reference = found_reference if isinstance(found_reference, int) else lengths.block
    promotion = values.get("promotion")
    if isinstance(promotion, Mapping):
        # A year of months is twelve rows, and all there is to judge by.
        filled["promotion"] = _filled(promotion, {"min_reference_rows": min(REFERENCE_ROWS, reference)})
    drift, staleness = values.get("drift"), values.get("staleness")
    if isinstance(drift, Mapping):
        # No longer than what a pair is judged on: of a short history there is no more to tell the usual by.
        recent = max(LEAST_RECENT, min(lengths.lookback, reference))
        filled["drift"] = _filled(drift, {"recent_steps": recent})
    if isinstance(staleness, Mapping) and staleness.get("max_age") == AUTO:
        filled["staleness"] = {**staleness, "max_age": lengths.max_age}
    if isinstance(values.get("baselines"), list | tuple):
        filled["baselines"] = [_with_season(each, lengths.season) for each in values["baselines"]]
    return filled


def derived_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `fill_open` finds for the values of an experiment, in their shape and without what was given."""
    return _changed(values, fill_open(values))


def _history(lengths: Lengths, values: Mapping[str, Any]) -> int | None:
    """Return the history of a frequency, if it is longer than the lookback, and stored windows and parts hold it.

    What is missing of it must stay missing, as it does where windows are scaled one by one.
    """
    history, lookback = lengths.history, values.get("lookback")
    if history is None or not isinstance(lookback, int) or lookback >= history:
        return None
    preprocessing = values.get("preprocessing")
    if isinstance(preprocessing, Mapping) and preprocessing.get("scaling") != "window":
        return None
    split = values.get("split")
    kept = (values["dataset"].get("window_steps"), split.get("context_steps") if isinstance(split, Mapping) else None)
    return None if any(isinstance(steps, int) and steps < history + ROOM for steps in kept) else history


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for key, value in after.items():
        earlier = before.get(key)
        if value != earlier:
            both = isinstance(value, Mapping) and isinstance(earlier, Mapping)
            found[key] = _changed(earlier or {}, value) if both else value
    return found


def _calendar_of(dataset: Mapping[str, Any]) -> Calendar:
    """Return what counts the steps of a dataset's values, without zone and holidays, on which no length depends.

    Raises:
        CalendarError: if the frequency is none.
    """
    frequency, weekmask = _frequency(dataset), dataset.get("weekmask")
    try:
        return make_calendar(frequency, weekmask=WORKING_DAYS if weekmask is None else str(weekmask))
    except CalendarError:
        # A weekmask that is none is left for validation to refuse, and by itself.
        return make_calendar(frequency)


def _frequency(dataset: Mapping[str, Any]) -> str:
    """Return what the frequency is, or stands in for one that the first ingest is yet to tell."""
    frequency = str(dataset["frequency"])
    if frequency != AUTO:
        return frequency
    inferred = read_found(str(dataset.get("name")))
    return UNKNOWN if inferred is None else inferred.frequency


def _calendar(calendar: Any, parts: tuple[Part, ...], season: int) -> Any:
    """Return `features.calendar` with the parts that a frequency has, and its season, where they are left open."""
    given = {} if calendar == AUTO else calendar
    if not isinstance(given, Mapping):
        return calendar
    found = _filled({"parts": None, **given}, {"parts": parts})
    if isinstance(found.get("fourier"), list | tuple):
        terms = [
            _filled({"season": None, **each}, {"season": season}) if isinstance(each, Mapping) else each
            for each in found["fourier"]
        ]
        found["fourier"] = terms
    return found


def _filled(values: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with those found in the place of `null`; what is not there at all stays away."""
    return {key: found[key] if value is None and key in found else value for key, value in values.items()}


def _with_season(baseline: Any, season: int) -> Any:
    if not isinstance(baseline, Mapping) or not isinstance(baseline.get("params"), Mapping):
        return baseline
    return {**baseline, "params": _filled(baseline["params"], {"season": season})}
