"""What a feed does to a column when it breaks, and no world does: units that are mistaken, values that stand still.

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
