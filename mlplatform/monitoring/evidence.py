"""One question about recent rows, answered: how unlikely, how large, and whether it came slowly.

A level that moves on as it moved in the training rows, or that came bit by bit in a season that they do not hold, is a
trend or a novel season; what came at once is drift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlplatform.monitoring.blocks import Blocks
from mlplatform.monitoring.calibration import Design, predict
from mlplatform.monitoring.statistics import rolling_mean

Floats = npt.NDArray[np.float64]

# A year's season can be told from a change once nearly a year of it is there.
A_YEAR = 0.9
# Training rows shorter than three windows say too little about what a window may be.
MIN_WINDOWS = 3
# A slope or bend is taken into account once it is hardly there by chance; it can only make a change less unlikely. In a
# year of training rows one that matters stands out, in less it may hide.
SLOPE_LEVEL, SLOPE_LEVEL_OF_A_YEAR = 0.2, 0.05
# A change came at once where one window's length holds most of it, and more than chance. The way from the training rows
# to now must be so many windows long for a season to have passed.
JUMP_SHARE, JUMP_DEVIATIONS, MIN_WAY = 0.6, 2.5, 4


@dataclass(frozen=True)
class Evidence:
    """What is known about one statistic of one feature.

    Attributes:
        column, kind: the feature, and the question, such as `level`.
        p: probability of a change as large while nothing but a trend goes on; NaN where the history is too short.
        p_flat: the same while nothing at all goes on.
        change: recent value less the expected one, in the statistic's units.
        floor: the least change that matters.
        is_gradual: whether the change came bit by bit between the training rows and now.
        expected, width: what the recent value was expected to be, and how far it may be off in 95 of 100 cases while
            nothing at all goes on; NaN where the history is too short.
    """

    column: str
    kind: str
    p: float
    p_flat: float
    change: float
    floor: float
    is_gradual: bool
    expected: float = float("nan")
    width: float = float("nan")

    @property
    def matters(self) -> bool:
        """Whether the change is large enough to act on."""
        return abs(self.change) >= self.floor


class Judge:
    """Answers questions about the recent blocks; what does not depend on the feature is computed once.

    Parameters:
        blocks: where training and recent rows lie.
    """

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self._designs: dict[tuple[bytes, bytes, int, bytes], Design] = {}

    def mean_of_blocks(
        self, column: str, kind: str, values: Floats, floor: float, beside: Floats | None = None
    ) -> Evidence:
        """Judge a statistic per block, of shape (blocks,), by its mean over the recent blocks.

        Parameters:
            beside: of shape (blocks, k), what else its expected value depends on.
        """
        finite = np.isfinite(values) if beside is None else np.isfinite(values) & np.isfinite(beside).all(axis=1)
        recent = np.arange(self.blocks.count)[self.blocks.recent]
        training, recent = self.blocks.training, recent[finite[recent]]
        training = training[finite[training]]
        path = rolling_mean(values if beside is None else left_of(values, beside, training), self.blocks.window)
        return self._judge(column, kind, values, training, recent, path, floor, one_sided=False, beside=beside)

    def window(
        self, column: str, kind: str, ends: npt.NDArray[np.int64], values: Floats, floor: float, *, one_sided: bool
    ) -> Evidence:
        """Judge a statistic of windows by its value for the recent one.

        Parameters:
            ends: blocks that the windows end with, evenly spaced, the recent one last.
            values: of shape (windows,).
        """
        if not len(ends):
            return _unknown(column, kind, floor)
        first = int(self.blocks.training[0]) if len(self.blocks.training) else 0
        usable = np.isfinite(values) & (ends >= first + self.blocks.window - 1)
        trained = self.blocks.is_training[ends] & usable
        path = np.full(self.blocks.count, np.nan)
        path[ends] = values
        training, recent = ends[trained], ends[-1:][usable[-1:]]
        return self._judge(column, kind, path, training, recent, path, floor, one_sided=one_sided)

    def _judge(
        self,
        column: str,
        kind: str,
        values: Floats,
        training: npt.NDArray[np.int64],
        recent: npt.NDArray[np.int64],
        path: Floats,
        floor: float,
        *,
        one_sided: bool,
        beside: Floats | None = None,
    ) -> Evidence:
        if not len(recent) or len(training) < 4 or np.ptp(training) + 1 < MIN_WINDOWS * self.blocks.window:
            return _unknown(column, kind, floor)
        known, now = values[training], float(values[recent].mean())
        flat = predict(known, now, self._design(training, recent, beside, degree=0), one_sided=one_sided)
        p, change = flat.p, flat.change
        # Half a season bends; a whole year of rows holds it.
        has_year = self.blocks.years >= A_YEAR
        degrees = () if self.blocks.days is None else (1,) if has_year else (1, 2)
        for degree in degrees:
            if not p < SLOPE_LEVEL:
                break
            sloped = self._design(training, recent, beside, degree=degree)
            if sloped.last_coefficient(known) < (SLOPE_LEVEL_OF_A_YEAR if has_year else SLOPE_LEVEL):
                p = max(p, predict(known, now, sloped, one_sided=one_sided).p)
        is_gradual = self._is_gradual(path, training, change)
        return Evidence(column, kind, p, flat.p, change, floor, is_gradual, flat.expected, flat.width)

    def _is_gradual(self, path: Floats, training: npt.NDArray[np.int64], change: float) -> bool:
        """Return whether no stretch of a window's length holds most of the change; asked where there is a way to it."""
        window, last = self.blocks.window, int(training[-1])
        if self.blocks.days is None or self.blocks.count - 1 - last < (1 + MIN_WAY) * window:
            return False
        jumps = np.full(len(path), np.nan)
        jumps[window:] = (path[window:] - path[:-window]) * np.sign(change)
        usual = float(np.nanstd(jumps[training])) if np.isfinite(jumps[training]).any() else np.inf
        largest = float(np.nanmax(jumps[last + 1 :], initial=-np.inf))
        return not (largest >= JUMP_SHARE * abs(change) and largest >= JUMP_DEVIATIONS * usual)

    def _design(
        self,
        training: npt.NDArray[np.int64],
        recent: npt.NDArray[np.int64],
        beside: Floats | None = None,
        *,
        degree: int,
    ) -> Design:
        key = (training.tobytes(), recent.tobytes(), degree, b"" if beside is None else beside.tobytes())
        if key not in self._designs:
            stride = int(np.diff(training).min())
            regressors = [self._regressors(places, beside, degree) for places in (training, recent)]
            offset = int(recent[-1])
            times, target = ((places - offset) // stride for places in (training, recent))
            self._designs[key] = Design(times, target, *regressors)
        return self._designs[key]

    def _regressors(self, places: npt.NDArray[np.int64], beside: Floats | None, degree: int) -> Floats:
        columns = [] if beside is None else list(beside[places].T)
        if self.blocks.years >= A_YEAR and self.blocks.days is not None:
            angle = 2 * np.pi * places * self.blocks.days / 365.25
            columns += [np.cos(angle), np.sin(angle)]
        columns += [(places / self.blocks.count) ** power for power in range(1, degree + 1)]
        return np.column_stack(columns) if columns else np.empty((len(places), 0))


def left_of(values: Floats, beside: Floats, training: npt.NDArray[np.int64]) -> Floats:
    """Return what a fit on training blocks to what stands beside a statistic leaves of it, of shape (blocks,)."""
    design = np.column_stack([np.ones(len(values)), beside])
    if not len(training):
        return values
    fitted = np.linalg.lstsq(design[training], values[training], rcond=None)[0]
    return np.asarray(values - design @ fitted)


def _unknown(column: str, kind: str, floor: float) -> Evidence:
    return Evidence(column, kind, float("nan"), float("nan"), 0.0, floor, False)
