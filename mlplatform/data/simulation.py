"""The `fleet`: hourly measurements of simulated power transformers, with gaps, outliers and faults to order.

Load has a daily, weekly and seasonal shape and autocorrelated noise, differently for every transformer; temperatures
follow from it by the model in `mlplatform.data.thermal`. A row reports its interval's mean load and ambient
temperature and the oil and winding temperatures at its end.

The data depend on the options alone and grow at the end only: a later `end`, more transformers or a fault from a later
date on leave every earlier row as it was, to the last bit. For that, each transformer has a random stream of its own
per purpose, drawn in time order, and no quantity looks ahead.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from mlplatform.config import Frozen, UtcDatetime, time_step
from mlplatform.data.thermal import Bool, Float64, simulate_temperatures

if TYPE_CHECKING:
    # Options are validated with the configuration, which must not pay for loading pandas.
    import pandas as pd

GAP_MEAN_STEPS = 6.0
IMPOSSIBLE_SHARE = 0.7
NIGHT_PEAK_HOUR = 2.0
WEATHER_STATION = 0
# What a broken measuring chain shows: an open and a shorted Pt100 sensor, and a current transformer at full scale.
OPEN_SENSOR_C, SHORTED_SENSOR_C, FULL_SCALE_PU = 850.0, -200.0, 99.99
SENSOR_NOISE_C = 0.2


class Fault(Frozen):
    """A change in the fleet from `start` on, until `end` if given, for the listed transformers or all of them.

    `cooling_failure`: the fans do not start, and the top-oil rise is larger by the factor 1 + severity. The same inputs
    lead to other temperatures, which is concept drift.
    `load_regime`: the load is larger by the factor 1 + severity and its daily peak moves into the night. The inputs are
    others, the physics is the same, which is covariate drift.
    """

    kind: Literal["cooling_failure", "load_regime"]
    start: UtcDatetime
    end: UtcDatetime | None = None
    entities: tuple[int, ...] | None = None
    severity: float = Field(default=0.3, gt=0, le=1)


class FleetOptions(Frozen):
    """The fleet to simulate. `end` is exclusive; naive times are UTC.

    `gap_rate` is the share of rows that are missing, in bursts; `outlier_rate` the share of rows with a wrong value,
    most of them physically impossible, some only unusual.
    """

    entities: int = Field(default=6, ge=1)
    start: UtcDatetime = Field(default="2024-01-01", validate_default=True)
    end: UtcDatetime = Field(default="2025-01-01", validate_default=True)
    seed: int = Field(default=0, ge=0)
    frequency: str = "1h"
    gap_rate: float = Field(default=0.01, ge=0, lt=0.5)
    outlier_rate: float = Field(default=0.002, ge=0, lt=0.5)
    faults: tuple[Fault, ...] = ()

    @field_validator("frequency")
    @classmethod
    def _fixed_step(cls, value: str) -> str:
        time_step(value)
        return value

    @model_validator(mode="after")
    def _possible(self) -> FleetOptions:
        if self.end <= self.start:
            raise ValueError(f"end must be after start, but start={self.start} and end={self.end}")
        for fault in self.faults:
            strangers = sorted(set(fault.entities or ()) - set(range(1, self.entities + 1)))
            if strangers:
                raise ValueError(f"a fault names transformers {strangers}, but the fleet has 1 to {self.entities}")
        return self


class _Stream(enum.IntEnum):
    """Purposes of random numbers. The values are part of the data: never renumber."""

    PROFILE = 0
    LOAD = 1
    WEATHER = 2
    TOP_OIL_SENSOR = 3
    HOT_SPOT_SENSOR = 4
    GAP_START = 5
    GAP_LENGTH = 6
    OUTLIER_ROW = 7
    OUTLIER_COLUMN = 8
    OUTLIER_KIND = 9
    OUTLIER_SIZE = 10


@dataclass(frozen=True)
class _Clock:
    """Position of every step in the day, week and year; arrays of shape (steps, 1)."""

    times: pd.DatetimeIndex
    step_hours: float
    hour: Float64
    is_weekend: Bool
    year_day: Float64


@dataclass(frozen=True)
class _Noise:
    """Random numbers of shape (steps, transformers), one stream per transformer and purpose."""

    seed: int
    transformers: tuple[int, ...]
    steps: int

    def normal(self, stream: _Stream) -> Float64:
        return np.stack(
            [self._generator(unit, stream).standard_normal(self.steps) for unit in self.transformers], axis=1
        )

    def uniform(self, stream: _Stream) -> Float64:
        return np.stack([self._generator(unit, stream).random(self.steps) for unit in self.transformers], axis=1)

    def _generator(self, unit: int, stream: _Stream) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=(unit, int(stream)))))


def simulate_fleet(options: FleetOptions) -> pd.DataFrame:
    """Simulate a fleet.

    Returns:
        Rows ordered by `transformer_id` (int64, from 1) and `timestamp` (datetime64[ns, UTC]), with `load_pu`,
        `ambient_c`, `top_oil_c`, `hot_spot_c` (float64) and `cooling` ("ONAN", or "ONAF" while the fans run).
    """
    import pandas as pd

    clock = _clock(options)
    units = tuple(range(1, options.entities + 1))
    noise = _Noise(options.seed, units, len(clock.times))
    load = _load(options, clock, noise)
    ambient = _ambient(options, clock, noise)
    fans_usable, rise_factor = _coolers(options, clock.times)
    result = simulate_temperatures(load, ambient, clock.step_hours * 60.0, fans_usable, rise_factor)
    measured = {
        "load_pu": load,
        "ambient_c": ambient,
        "top_oil_c": result.top_oil_c + SENSOR_NOISE_C * noise.normal(_Stream.TOP_OIL_SENSOR),
        "hot_spot_c": result.hot_spot_c + SENSOR_NOISE_C * noise.normal(_Stream.HOT_SPOT_SENSOR),
    }
    _add_outliers(measured, options.outlier_rate, noise)
    kept = ~_gaps(options.gap_rate, noise).T.ravel()
    columns = {name: values.T.ravel()[kept] for name, values in measured.items()}
    return pd.DataFrame(
        {
            "transformer_id": np.repeat(np.array(units, dtype=np.int64), noise.steps)[kept],
            "timestamp": pd.DatetimeIndex(np.tile(clock.times.to_numpy(), len(units))[kept], tz="UTC"),
            **columns,
            "cooling": np.where(result.is_fans_on.T.ravel()[kept], "ONAF", "ONAN").astype(object),
        }
    )


def _clock(options: FleetOptions) -> _Clock:
    import pandas as pd

    step = pd.Timedelta(time_step(options.frequency))
    times = pd.date_range(options.start, options.end, freq=step, inclusive="left", unit="ns").tz_localize(None)
    hour = np.asarray((times - times.normalize()) / pd.Timedelta(hours=1), dtype=np.float64)
    return _Clock(
        times=times,
        step_hours=step / pd.Timedelta(hours=1),
        hour=hour[:, None],
        is_weekend=(np.asarray(times.dayofweek) >= 5)[:, None],
        year_day=(np.asarray(times.dayofyear) + hour / 24.0)[:, None],
    )


def _load(options: FleetOptions, clock: _Clock, noise: _Noise) -> Float64:
    """Return the load factor of shape (steps, transformers)."""
    profile = _Noise(options.seed, noise.transformers, 7).uniform(_Stream.PROFILE)
    level = 0.60 + 0.35 * profile[0]
    base = 0.45 + 0.15 * profile[1]
    morning = 0.3 + 0.4 * profile[2]
    shift = 2.0 * profile[3] - 1.0
    weekend = 0.70 + 0.25 * profile[4]
    season = 0.05 + 0.15 * profile[5]
    spread = 0.03 + 0.03 * profile[6]
    peaks = morning * _peak(clock.hour - 8.0 - shift) + (1.0 - morning) * _peak(clock.hour - 19.0 - shift)
    peaks = peaks / np.maximum(morning, 1.0 - morning)
    night = _peak(clock.hour - NIGHT_PEAK_HOUR - shift)
    factor, moved = _load_regimes(options, clock.times)
    day = base + (1.0 - base) * ((1.0 - moved) * peaks + moved * night)
    week = np.where(clock.is_weekend, weekend, 1.0)
    year = 1.0 + season * np.cos(2.0 * np.pi * (clock.year_day - 15.0) / 365.25)
    wander = _autocorrelated(noise.normal(_Stream.LOAD), clock.step_hours, correlation_hours=6.0)
    return np.asarray(np.maximum(level * factor * (day * week * year + spread * wander), 0.02))


def _peak(hours: Float64) -> Float64:
    """Return a smooth daily peak of height one at hour zero, some seven hours wide."""
    return np.asarray(np.exp(3.0 * (np.cos(2.0 * np.pi * hours / 24.0) - 1.0)))


def _ambient(options: FleetOptions, clock: _Clock, noise: _Noise) -> Float64:
    """Return the ambient temperature of shape (steps, transformers): shared weather and a little of each site's own."""
    region = _Noise(options.seed, (WEATHER_STATION,), noise.steps).normal(_Stream.WEATHER)
    weather = 3.0 * _autocorrelated(region, clock.step_hours, correlation_hours=48.0)
    site = 0.7 * _autocorrelated(noise.normal(_Stream.WEATHER), clock.step_hours, correlation_hours=12.0)
    season = 11.0 + 10.0 * np.cos(2.0 * np.pi * (clock.year_day - 200.0) / 365.25)
    return np.asarray(season + 4.0 * np.cos(2.0 * np.pi * (clock.hour - 15.0) / 24.0) + weather + site)


def _autocorrelated(shocks: Float64, step_hours: float, correlation_hours: float) -> Float64:
    """Turn white noise into a stationary AR(1) series of unit variance along the first axis."""
    from scipy.signal import lfilter

    memory = np.exp(-step_hours / correlation_hours)
    scaled = shocks * np.sqrt(1.0 - memory**2)
    scaled[0] = shocks[0]
    return np.asarray(lfilter([1.0], [1.0, -memory], scaled, axis=0))


def _active(fault: Fault, times: pd.DatetimeIndex, entities: int) -> Bool:
    """Return where a fault acts, of shape (steps, transformers)."""
    import pandas as pd

    moments = times.tz_localize("UTC")
    during = np.asarray(moments >= pd.Timestamp(fault.start))
    if fault.end is not None:
        during &= np.asarray(moments < pd.Timestamp(fault.end))
    affected = np.isin(np.arange(1, entities + 1), range(1, entities + 1) if fault.entities is None else fault.entities)
    return np.asarray(during[:, None] & affected)


def _load_regimes(options: FleetOptions, times: pd.DatetimeIndex) -> tuple[Float64, Float64]:
    """Return the factor on the load and the share of the daily peak that has moved into the night."""
    factor, moved = (np.full((len(times), options.entities), value) for value in (1.0, 0.0))
    for fault in options.faults:
        if fault.kind == "load_regime":
            active = _active(fault, times, options.entities)
            factor[active] *= 1.0 + fault.severity
            moved[active] = min(fault.severity, 1.0)
    return factor, moved


def _coolers(options: FleetOptions, times: pd.DatetimeIndex) -> tuple[Bool, Float64]:
    """Return where the fans can start, and the factor on the top-oil rise."""
    is_usable = np.ones((len(times), options.entities), dtype=bool)
    rise_factor = np.ones((len(times), options.entities))
    for fault in options.faults:
        if fault.kind == "cooling_failure":
            active = _active(fault, times, options.entities)
            is_usable[active] = False
            rise_factor[active] *= 1.0 + fault.severity
    return is_usable, rise_factor


def _gaps(rate: float, noise: _Noise) -> Bool:
    """Return the rows that are missing: bursts of geometric length, of shape (steps, transformers)."""
    starts = noise.uniform(_Stream.GAP_START) < rate / GAP_MEAN_STEPS
    lengths = np.ceil(np.log1p(-noise.uniform(_Stream.GAP_LENGTH)) / np.log1p(-1.0 / GAP_MEAN_STEPS))
    step = np.arange(noise.steps)[:, None]
    ends = np.where(starts, step + lengths, 0)
    return np.asarray(np.maximum.accumulate(ends, axis=0) > step)


def _add_outliers(measured: dict[str, Float64], rate: float, noise: _Noise) -> None:
    """Replace single values in place. The physics has run before: only the measurement is wrong."""
    is_outlier = noise.uniform(_Stream.OUTLIER_ROW) < rate
    column = np.floor(noise.uniform(_Stream.OUTLIER_COLUMN) * len(measured))
    is_impossible = noise.uniform(_Stream.OUTLIER_KIND) < IMPOSSIBLE_SHARE
    size = 2.0 * noise.uniform(_Stream.OUTLIER_SIZE) - 1.0
    for position, (name, values) in enumerate(measured.items()):
        here = is_outlier & (column == position)
        if name == "load_pu":
            broken, unusual = np.full_like(size, FULL_SCALE_PU), values * (1.0 + 0.4 * size)
        else:
            broken, unusual = np.where(size > 0, OPEN_SENSOR_C, SHORTED_SENSOR_C), values + 12.0 * size
        values[here] = np.where(is_impossible, broken, unusual)[here]
