"""Training rows, recent rows and what lies between, cut into blocks of time that end where the recent rows end.

A block is a day where a day has enough steps, so that every block holds the same hours of the day, and windows of a
week the same days of the week; rows of tables, which know no time, are cut as they come. Entities lie side by side:
what is common to them moves a block's statistic once, however many there are.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.calendars import Calendar
from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.datamodule import to_utc_ns

Floats = npt.NDArray[np.float64]

DAY = dt.timedelta(days=1)
DAYS_PER_WEEK = 7
# A block of days, business days or months is a week or a year; a year of weeks would leave too few blocks.
LONGEST_SEASON = 12
# A block with fewer steps says little about spread.
MIN_STEPS = 6
# Training blocks beyond these are left out, oldest first: two years of days and a bit.
MAX_BLOCKS = 800
# Blocks that the recent rows of a table are cut into.
TABLE_BLOCKS = 7
# Codes of categories: a missing one, and one that no training row has.
MISSING, UNSEEN = -1, -2


@dataclass(frozen=True)
class Blocks:
    """Where rows lie in blocks; blocks are in time order and the last `window` of them are recent.

    Attributes:
        steps: length of a block in steps.
        window: number of recent blocks.
        is_training: of shape (blocks,): whether training rows alone make the block.
        days: days from the start of one block to that of the next; `None` for tables.
        newest: the newest moment, `None` for tables.
        step_of, entity_of: of shape (rows,): place of every row in the flat panel, and its entity; -1 of rows outside.
        entities: as they are in the training rows.
        frame: the rows.
    """

    steps: int
    window: int
    is_training: npt.NDArray[np.bool_]
    days: float | None
    newest: pd.Timestamp | None
    step_of: npt.NDArray[np.int64]
    entity_of: npt.NDArray[np.int64]
    entities: tuple[object, ...]
    frame: pd.DataFrame

    @property
    def count(self) -> int:
        """Number of blocks."""
        return len(self.is_training)

    @property
    def training(self) -> npt.NDArray[np.int64]:
        """Places of the training blocks."""
        return np.flatnonzero(self.is_training)

    @property
    def recent(self) -> slice:
        """The recent blocks."""
        return slice(self.count - self.window, self.count)

    @property
    def years(self) -> float:
        """How long the training blocks are, in years; 0 for tables."""
        training = self.training
        if self.days is None or not len(training):
            return 0.0
        return float(training[-1] - training[0] + 1) * self.days / 365.25

    @property
    def season(self) -> int:
        """After how many blocks the same days of the week come again, as far as the training rows show it."""
        week = DAYS_PER_WEEK if self.days == 1.0 else 1
        return week if int(self.is_training.sum()) >= 4 * week else 1

    @property
    def has_rows(self) -> npt.NDArray[np.bool_]:
        """Whether an entity has a row in a block, of shape (blocks, entities)."""
        inside = self.step_of >= 0
        found = np.zeros((self.count, len(self.entities)), dtype=bool)
        found[self.step_of[inside] // self.steps, self.entity_of[inside]] = True
        return found

    def numbers(self, column: str) -> Floats:
        """Return a numeric column of shape (blocks, steps, entities); NaN where there is no value."""
        inside = self.step_of >= 0
        panel = np.full((self.count * self.steps, len(self.entities)), np.nan)
        values = self.frame[column].to_numpy(dtype=np.float64)[inside]
        panel[self.step_of[inside], self.entity_of[inside]] = np.where(np.isfinite(values), values, np.nan)
        return panel.reshape(self.count, self.steps, len(self.entities))

    def categories(self, column: str) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
        """Return a categorical column as codes of shape (blocks, steps, entities), and the categories of training."""
        inside = self.step_of >= 0
        step, entity = self.step_of[inside], self.entity_of[inside]
        trained = self.is_training[step // self.steps]
        codes, found = pd.factorize(self.frame[column][inside])
        names = [str(each) for each in found]
        known = sorted({names[code] for code in np.unique(codes[trained]) if code >= 0})
        number = {text: code for code, text in enumerate(known)}
        # The last entry is that of a missing value, whose code is -1.
        codes = np.array([*(number.get(name, UNSEEN) for name in names), MISSING], dtype=np.int64)[codes]
        panel = np.full((self.count * self.steps, len(self.entities)), MISSING, dtype=np.int64)
        panel[step, entity] = codes
        return panel.reshape(self.count, self.steps, len(self.entities)), tuple(known)


def cut_blocks(train: pd.DataFrame, history: pd.DataFrame, dataset: DatasetConfig, recent_steps: int) -> Blocks:
    """Cut time series into blocks; training rows that lie in the recent window are recent.

    Parameters:
        train, history: training rows, and all rows up to now, in canonical form.
        recent_steps: length of the recent window in steps.
    """
    newest, newest_trained = history[TIMESTAMP].max(), train[TIMESTAMP].max()
    later = history[history[TIMESTAMP] > newest_trained]
    frame = pd.concat([train, later], ignore_index=True)
    calendar = dataset.calendar
    steps, stride = _lengths(calendar, recent_steps)
    behind = calendar.steps(to_utc_ns(frame[TIMESTAMP]).astype(np.int64), newest.as_unit("ns").value)
    oldest_trained = calendar.count(train[TIMESTAMP].min(), newest)
    last_trained = calendar.count(newest_trained, newest)
    count = min(oldest_trained // stride + 1, last_trained // stride + MAX_BLOCKS)
    window = max(1, recent_steps // steps)
    back = np.arange(count)[::-1]
    is_training = (back * stride >= last_trained) & (back * stride + steps - 1 <= oldest_trained) & (back >= window)
    entities = pd.Index(pd.unique(train[ENTITY]))
    entity_of = entities.get_indexer(frame[ENTITY]).astype(np.int64)
    block, within = behind // stride, behind % stride
    is_inside = (behind >= 0) & (block < count) & (within < steps) & (entity_of >= 0)
    place = (count - 1 - block) * steps + (steps - 1 - within)
    return Blocks(
        steps=steps,
        window=min(window, count),
        is_training=is_training,
        days=stride * (dataset.nominal_step / DAY),
        newest=newest,
        step_of=np.where(is_inside, place, -1).astype(np.int64),
        entity_of=entity_of,
        entities=tuple(entities),
        frame=frame,
    )


def cut_table(train: pd.DataFrame, history: pd.DataFrame, recent_rows: int) -> Blocks:
    """Cut tables into blocks: the training rows as they come, then the newest rows of the history."""
    recent = history.tail(recent_rows)
    frame = pd.concat([train, recent], ignore_index=True)
    steps = max(1, len(recent) // TABLE_BLOCKS)
    window = max(1, len(recent) // steps)
    behind = np.arange(len(frame))[::-1]
    # The recent rows fill their blocks; a rest of them is left out at their old end.
    rest = len(recent) - window * steps
    behind = np.where(behind < window * steps, behind, np.where(behind < len(recent), -1, behind - rest))
    count = min(window + len(train) // steps, window + MAX_BLOCKS)
    place = (count - 1 - behind // steps) * steps + (steps - 1 - behind % steps)
    is_inside = (behind >= 0) & (behind < count * steps)
    return Blocks(
        steps=steps,
        window=window,
        is_training=np.arange(count) < count - window,
        days=None,
        newest=None,
        step_of=np.where(is_inside, place, -1).astype(np.int64),
        entity_of=np.zeros(len(frame), dtype=np.int64),
        entities=("all rows",),
        frame=frame,
    )


def _lengths(calendar: Calendar, recent_steps: int) -> tuple[int, int]:
    """Return the length of a block and the distance between the starts of two, in steps."""
    step = dt.timedelta(microseconds=calendar.nominal_ns // 1000)
    per_day = DAY // step if DAY % step == dt.timedelta() and step <= DAY else 0
    if per_day >= MIN_STEPS:
        # A window of a few hours is compared with the same hours of other days.
        return min(per_day, recent_steps), per_day
    length = max(per_day, 1)
    while length < MIN_STEPS:
        length += max(per_day, 1)
    if step >= DAY and calendar.seasons and calendar.seasons[0] <= LONGEST_SEASON:
        length = calendar.seasons[0]
    length = min(length, recent_steps)
    return length, length
