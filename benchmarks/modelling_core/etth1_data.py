"""ETTh1 as the papers use it: borders of 8640, 2880 and 2880 hours, and columns scaled by the training rows."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from mlplatform.datamodule import ModelSpec, WindowSamples

BORDERS = {"train": (0, 8640), "validation": (8640, 11520), "test": (11520, 14400)}


def load(columns: list[str] | None = None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return scaled values (rows, columns) as float32, the time of every row, and the names of the columns."""
    path = Path(os.environ["MLPLATFORM_DATA_DIR"]) / "ETTh1.csv"
    frame = pd.read_csv(path, parse_dates=["date"])
    names = columns or [name for name in frame.columns if name != "date"]
    values = frame[names].to_numpy(dtype=np.float64)
    train = values[slice(*BORDERS["train"])]
    scaled = (values - train.mean(axis=0)) / train.std(axis=0)
    return scaled.astype(np.float32), frame["date"].to_numpy(dtype="datetime64[ns]"), tuple(names)


def parts(
    lookback: int, horizon: int, columns: list[str] | None = None, targets: tuple[str, ...] | None = None
) -> dict[str, WindowSamples]:
    """Return the samples of every part; windows of validation and test may look back over the border."""
    values, times, names = load(columns)
    positions = tuple(range(len(names))) if targets is None else tuple(names.index(target) for target in targets)
    samples = {}
    for part, (start, end) in BORDERS.items():
        first = start + lookback - 1 if part == "train" else start - 1
        origins = np.arange(first, end - horizon, dtype=np.int64)
        samples[part] = WindowSamples(values, times, origins, names, positions, lookback, horizon, step_seconds=3600)
    return samples


def spec_of(samples: WindowSamples, quantiles: tuple[float, ...] = ()) -> ModelSpec:
    """Return the spec of a model for these samples."""
    return ModelSpec(
        "forecast",
        samples.channels,
        samples.targets,
        samples.lookback,
        samples.horizon,
        step_seconds=samples.step_seconds,
        quantiles=quantiles,
    )
