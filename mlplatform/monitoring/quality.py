"""What is wrong with the data themselves, and no change of the world: a reason to call someone, not to train again.

Looked for in the newest block, so that it is found the day it happens: columns and rows that stay away, sensors that
repeat one value, values far outside everything seen, another unit, and columns that stand in each other's place. A unit
or a swap is named only if putting it right makes the newest rows ordinary again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mlplatform.data import CONVERSIONS, LEAST_COPIED, copied, exchanges, is_stuck, runs_of
from mlplatform.monitoring.blocks import Blocks
from mlplatform.monitoring.calibration import discoveries
from mlplatform.monitoring.evidence import Evidence, Judge
from mlplatform.monitoring.questions import DAILY_SHAPE, LEVEL, LOG_FLOOR, SPREAD, ask_mean, correlation_distances
from mlplatform.monitoring.report import AND, QualityBreak
from mlplatform.monitoring.statistics import daily_shape, level, spread, standardise

Floats = npt.NDArray[np.float64]
# What the newest block of a column says of its level, its spread and its daily shape.
_Newest = tuple[Evidence, Evidence, Evidence]

SCHEMA, FRESHNESS, MISSING_VALUES, STUCK = "schema", "freshness", "missing", "stuck"
RANGE, UNIT, SWAPPED, LATE = "range", "unit", "swapped", "late"
# False alarms of the calibrated questions, over all features.
RATE = 0.005
# A stretch of equal values is a stuck sensor from this length on, if it is far longer than any of the training.
MIN_RUN = 6
# Outside of everything seen by more than the whole range of it, in more than so many values.
RANGE_SHARE = 0.01
# Training blocks that a range needs.
RANGE_BLOCKS = 14
# The share of entities whose newest block is empty that makes a feed stale: one transformer may be out of service.
SILENT_SHARE = 0.5
# What is repaired is ordinary if nothing about it is less likely than this; of two columns, all that is asked of both.
ORDINARY = 0.05
# Standard deviations that a changed offset moves the level by at least.
OFFSET_FLOOR = 3.0
# A smaller factor explains a real change of one day's spread away.
LEAST_FACTOR = 3.0


def schema_breaks(columns: Sequence[str], present: Sequence[str]) -> list[QualityBreak]:
    """Return the columns that rows do not have."""
    return [
        QualityBreak(SCHEMA, name, f"the rows have no column {name!r}; they have {', '.join(present)}")
        for name in columns
        if name not in present
    ]


def freshness_breaks(blocks: Blocks, max_age: dt.timedelta | None, now: dt.datetime) -> list[QualityBreak]:
    """Return whether the newest row is too old, or most entities have stopped sending.

    Parameters:
        max_age: the greatest age of the newest row that is not too old, `None` for any.
    """
    if blocks.newest is None:
        return []
    found = []
    age = now - blocks.newest.to_pydatetime()
    if max_age is not None and age > max_age:
        found.append(QualityBreak(FRESHNESS, "", f"the newest row is {age} old; {max_age} is the limit"))
    entities = len(blocks.entities)
    newest = blocks.step_of >= (blocks.count - 1) * blocks.steps
    silent = entities - len(np.unique(blocks.entity_of[newest]))
    if silent > SILENT_SHARE * entities:
        found.append(QualityBreak(FRESHNESS, "", f"{silent} of {entities} entities have no row in the newest block"))
    return found


def number_breaks(judge: Judge, values: Mapping[str, Floats]) -> list[QualityBreak]:
    """Return what is broken in the values of numeric columns, a column's first fault alone.

    Parameters:
        judge: of the newest block.
        values: per column, of shape (blocks, steps, entities).
    """
    found = _stuck_breaks(judge, values)
    rest = _sound(values, found)
    newest = {name: _newest(judge, name, each) for name, each in rest.items()}
    for look in (_swaps, _unit_breaks):
        found += look(judge, rest, newest)
        rest = _sound(rest, found)
    return found + _range_breaks(judge, rest)


def _sound(values: Mapping[str, Floats], found: Sequence[QualityBreak]) -> dict[str, Floats]:
    """Return the columns that are not among those found broken."""
    broken = {name for each in found for name in each.columns}
    return {name: each for name, each in values.items() if name not in broken}


def missing_breaks(judge: Judge, shares: Mapping[str, Floats], min_missing: float) -> list[QualityBreak]:
    """Return the columns of whose newest values more are missing than chance allows.

    Parameters:
        judge: of the newest block.
        shares: per column, the missing share of every block.
    """
    blocks, names = judge.blocks, list(shares)
    evidence = [judge.mean_of_blocks(name, MISSING_VALUES, shares[name], min_missing) for name in names]
    p = np.array([each.p_flat if each.change >= each.floor else 1.0 for each in evidence])
    found = []
    for name, is_broken in zip(names, discoveries(p, RATE)[0], strict=True):
        share = shares[name]
        trained = share[blocks.is_training & np.isfinite(share)]
        usual = float(trained.mean()) if len(trained) else 0.0
        # A column that is wholly gone needs no calibration.
        if is_broken or (share[-1] >= 1.0 and usual < 1.0 - min_missing):
            detail = f"{share[-1]:.0%} of the newest values are missing; {usual:.1%} were in training"
            found.append(QualityBreak(MISSING_VALUES, name, detail))
    return found


def late_breaks(blocks: Blocks, values: Mapping[str, Floats]) -> list[QualityBreak]:
    """Return the columns that began to repeat old values in the recent blocks, as of a feed that has fallen behind.

    Looked for in the recent window and not in the newest block alone: once the old values have come again the late ones
    look like any others.

    Parameters:
        blocks: with the recent window.
        values: per column, of shape (blocks, steps, entities).
    """
    if blocks.days is None or blocks.steps * blocks.window < LEAST_COPIED:
        return []
    found = {name: _late(blocks, each) for name, each in values.items()}
    return [QualityBreak(LATE, name, detail) for name, detail in found.items() if detail]


def _late(blocks: Blocks, values: Floats) -> str:
    """Return which entities repeat what they were some steps before."""
    first, since = _asked_of(blocks), (blocks.count - blocks.window) * blocks.steps
    found = []
    for number, entity in enumerate(blocks.entities):
        series = values[:, :, number].ravel()[first:]
        stretch = copied(series, since - first, blocks.window * blocks.steps)
        if stretch is not None:
            found.append(f"entity {entity} repeats for {stretch.length} steps what it was {stretch.lag} steps before")
    return "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")


def _asked_of(blocks: Blocks) -> int:
    """Return the first step that says what a series does by itself; four recent windows are enough."""
    return max(blocks.count - 5 * blocks.window, 0) * blocks.steps


def _stuck_breaks(judge: Judge, values: Mapping[str, Floats]) -> list[QualityBreak]:
    blocks = judge.blocks
    if blocks.days is None:
        # Rows of a table may come in any order, sorted by value too.
        return []
    found = {name: _stuck(blocks, each) for name, each in values.items()}
    return [QualityBreak(STUCK, name, detail) for name, detail in found.items() if detail]


def _range_breaks(judge: Judge, values: Mapping[str, Floats]) -> list[QualityBreak]:
    found = {name: _outside(judge.blocks, each) for name, each in values.items()}
    return [QualityBreak(RANGE, name, detail) for name, detail in found.items() if detail]


def _stuck(blocks: Blocks, values: Floats) -> str:
    """Return which entities repeat one value for longer than ever before."""
    found = []
    for number, entity in enumerate(blocks.entities):
        own = values[:, :, number]
        trained, recent = own[blocks.is_training], own[-2:]
        trained, recent = trained[np.isfinite(trained)], recent[np.isfinite(recent)]
        if not len(trained) or len(recent) < MIN_RUN:
            continue
        run, longest = int(runs_of(recent)[0][-1]), int(runs_of(trained)[0].max())
        if is_stuck(run, recent[-1], trained, MIN_RUN):
            found.append(f"entity {entity} repeats {recent[-1]:g} for {run} steps; {longest} was the longest before")
    return "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")


def _outside(blocks: Blocks, values: Floats) -> str:
    trained, newest = values[blocks.is_training], values[-1]
    if not np.isfinite(trained).any() or not np.isfinite(newest).any():
        return ""
    low, high = float(np.nanmin(trained)), float(np.nanmax(trained))
    size = high - low
    far = newest[(newest < low - size) | (newest > high + size)]
    if size == 0.0 or len(trained) < RANGE_BLOCKS or len(far) <= RANGE_SHARE * np.isfinite(newest).sum():
        return ""
    return f"{len(far)} of the newest values are as far out as {far[0]:g}; training rows lie in {low:g} to {high:g}"


def _unit_breaks(judge: Judge, values: Mapping[str, Floats], newest: Mapping[str, _Newest]) -> list[QualityBreak]:
    """Return the unit that the newest block of a column looks to be in, for those whose level is extraordinary.

    A factor also changes the spread, and is named only if that is out of the ordinary; an offset or another sign only
    if the level moves far.
    """
    found = []
    for name in _strange(values, newest, LEVEL)[0]:
        now_level, now_spread, _ = newest[name]
        for unit in CONVERSIONS:
            if unit.offset or unit.factor == -1.0:
                is_plain = abs(now_level.change) >= OFFSET_FLOOR
            else:
                is_far = max(unit.factor, 1 / unit.factor) >= LEAST_FACTOR
                is_plain = is_far and now_spread.p_flat <= ORDINARY
            if not is_plain:
                continue
            repaired = values[name].copy()
            repaired[-1] = unit.undone(repaired[-1])
            if _is_ordinary(judge, name, repaired):
                detail = f"the newest values look as if they were in another unit ({unit.words})"
                found.append(QualityBreak(UNIT, name, detail))
                break
    return found


def _swaps(judge: Judge, values: Mapping[str, Floats], newest: Mapping[str, _Newest]) -> list[QualityBreak]:
    """Return the pairs of columns whose newest blocks are ordinary once they change places, and were not before."""
    strange, unusual = _strange(values, newest, LEVEL, SPREAD)
    found, done = [], set[str]()
    # One of the two is beyond chance; of the other it is enough that it is none of the usual days.
    for swap in exchanges(unusual):
        pair = (swap.first, swap.second)
        if done.intersection(pair) or not set(strange).intersection(pair):
            continue
        back = swap.undone(values, -1)
        # Six questions: one in four sound pairs would not be ordinary if each were asked as of one alone.
        asked = [each.p_flat for name in pair for each in _newest(judge, name, back[name])]
        if not any(p <= ORDINARY / len(asked) for p in asked):
            done.update(pair)
            detail = f"{swap.words}: the newest values of each look like those of the other"
            found.append(QualityBreak(SWAPPED, AND.join(pair), detail))
    return found


def swapped_by_correlation(blocks: Blocks, values: Mapping[str, Floats]) -> list[QualityBreak]:
    """Return the pair of columns that, once they change places, belongs together with the others as before.

    For columns that look alike one by one, asked once the correlations of all features have changed.
    """
    standards = {name: standardise(each, blocks) for name, each in values.items()}
    distances = correlation_distances(blocks, list(standards.values()))
    usual = float(np.nanquantile(distances[blocks.is_training], 1.0 - ORDINARY))
    best, found = float(distances[-1]), None
    for swap in exchanges(list(values)):
        back = swap.undone(standards, blocks.recent)
        distance = float(correlation_distances(blocks, list(back.values()))[-1])
        if distance < best:
            best, found = distance, swap
    if found is None or best > usual:
        return []
    detail = f"{found.words}: their correlations with the others have changed places"
    return [QualityBreak(SWAPPED, AND.join((found.first, found.second)), detail)]


def _strange(names: Iterable[str], newest: Mapping[str, _Newest], *kinds: str) -> tuple[list[str], list[str]]:
    """Return the columns whose newest block is extraordinary in what is asked, and those that are not ordinary."""
    evidence = [each for name in names for each in newest[name] if each.kind in kinds]
    p = np.array([each.p_flat if each.matters or np.isnan(each.p_flat) else 1.0 for each in evidence])
    rejected = discoveries(p, RATE)[0]
    columns = np.array([each.column for each in evidence], dtype=object)
    strange, unusual = (list(dict.fromkeys(columns[chosen])) for chosen in (rejected, p <= ORDINARY))
    return strange, unusual


def _is_ordinary(judge: Judge, name: str, values: Floats) -> bool:
    return all(not each.p_flat <= ORDINARY for each in _newest(judge, name, values))


def _newest(judge: Judge, name: str, values: Floats) -> _Newest:
    """Ask about the newest block of a column."""
    blocks, standard = judge.blocks, standardise(values, judge.blocks)
    shape = daily_shape(standard, blocks.window)
    return (
        ask_mean(judge, name, LEVEL, level(standard), 1.0),
        ask_mean(judge, name, SPREAD, spread(standard), 2 * LOG_FLOOR),
        judge.window(name, DAILY_SHAPE, np.arange(blocks.count), shape, LOG_FLOOR, one_sided=True),
    )
