"""What a feed does to a column when it breaks, and no world does.

Units that are mistaken, values that stand still, and old values that come again because the feed has fallen behind.

Here: the knowledge itself, on plain numbers. How sure one must be is another question for one day's rows beside a long
history (the drift report of `monitoring`) than for all rows since the champion's (the gate of `promotion`); both ask
it of what is written here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

# A sensor that keeps its value so many times longer than it ever did is stuck, but not where the value is one that it
# rests at: it had it in such a share of the earlier rows, as rain is 0 and a holiday is rare.
STUCK, RESTING = 3, 0.2
# So many values in a row, half of them distinct, are the same as those some steps before by no chance; a schedule that
# comes again every day or week did so before, too.
LEAST_COPIED = 12


@dataclass(frozen=True)
class Conversion:
    """A unit for another: new = factor * old + offset."""

    words: str
    factor: float
    offset: float = 0.0

    def undone(self, values: Float64) -> Float64:
        """Return values of any shape in the old unit."""
        return (values - self.offset) / self.factor

    def __invert__(self) -> Conversion:
        return Conversion(f"back, {self.words}", 1 / self.factor, -self.offset / self.factor)


# A mere factor below 2, as of kilometres and miles, is not here: a world may change by it.
_KNOWN = (
    Conversion("Celsius to Fahrenheit", 1.8, 32.0),
    Conversion("Celsius to Kelvin", 1.0, 273.15),
    Conversion("Fahrenheit to Kelvin", 5 / 9, 459.67 * 5 / 9),
    Conversion("a factor of 10", 10.0),
    Conversion("a factor of 100", 100.0),
    Conversion("a factor of 1000", 1e3),
    Conversion("a factor of 1000000", 1e6),
    Conversion("a factor of 60", 60.0),
    Conversion("a factor of 3600", 3600.0),
    Conversion("m/s to km/h", 3.6),
    Conversion("m to feet", 1 / 0.3048),
    Conversion("cm to inches", 1 / 2.54),
    Conversion("kg to pounds", 1 / 0.45359237),
    Conversion("bar to psi", 14.503774),
)
# The other sign is its own way back.
CONVERSIONS: tuple[Conversion, ...] = (
    *(way for each in _KNOWN for way in (each, ~each)),
    Conversion("the other sign", -1.0),
)


def runs_of(values: Float64) -> tuple[npt.NDArray[np.int64], Float64]:
    """Return how often each value of a series, of shape (n,), stands in a row, oldest first; what is NaN is left out.

    Returns:
        Lengths, whose sum is the number of values that are there, and the value of each run; both of shape (runs,).
    """
    present = values[np.isfinite(values)]
    starts = np.flatnonzero(np.diff(present, prepend=np.nan) != 0)
    return np.diff(starts, append=len(present)), present[starts]


def is_stuck(run: int, value: float, earlier: Float64, least: int) -> bool:
    """Return whether a value has stood still for longer than a working sensor lets it.

    Parameters:
        run: rows in a row with this value.
        earlier: the series while the sensor worked, of shape (n,).
        least: fewer rows say nothing.
    """
    longest = int(runs_of(earlier)[0].max(initial=0))
    return run >= least and run > STUCK * longest and not is_resting(value, earlier)


def is_resting(value: float, earlier: Float64) -> bool:
    """Return whether a series of shape (n,) had a value so often that it says nothing if it keeps it."""
    present = earlier[np.isfinite(earlier)]
    return bool(len(present)) and float((present == value).mean()) >= RESTING


@dataclass(frozen=True)
class Copied:
    """A stretch of a series that repeats, value by value, what it was some steps before.

    Attributes:
        start: its first place.
        length: how many values it has.
        lag: how many steps before they stood.
    """

    start: int
    length: int
    lag: int


def copied(values: Float64, since: int, longest_lag: int) -> Copied | None:
    """Return the longest stretch of old values that come again, as of a feed that falls behind; `None` if none does.

    A feed that is late by a number of steps sends so many old values once more, and then goes on.

    Parameters:
        values: of shape (n,), evenly spaced in time; NaN where there is no value.
        since: the first place to look at; the places before it say what the series does by itself.
        longest_lag: lags up to this one are tried.
    """
    found = None
    for lag in range(1, min(longest_lag, len(values) - LEAST_COPIED) + 1):
        is_same = values[lag:] == values[:-lag]
        first = max(since - lag, 0)
        if int(is_same[first:].sum()) < max(LEAST_COPIED, found.length + 1 if found else 0):
            continue
        starts, lengths = _stretches(is_same[first:])
        longest = int(lengths.argmax())
        start, length = first + lag + int(starts[longest]), int(lengths[longest])
        if length < LEAST_COPIED or (found is not None and length <= found.length):
            continue
        usual = int(_stretches(is_same[:first])[1].max(initial=0))
        if length > STUCK * usual and 2 * len(np.unique(values[start : start + length])) >= length:
            found = Copied(start, length, lag)
    return found


def _stretches(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return starts and lengths of the stretches of a mask that are true."""
    edges = np.diff(mask.astype(np.int8), prepend=0, append=0)
    starts = np.flatnonzero(edges == 1)
    return starts, np.flatnonzero(edges == -1) - starts
