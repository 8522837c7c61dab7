"""Time series: windows over the rows of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlplatform.datamodule.base import DataModule
from mlplatform.datamodule.folds import SampleIndex
from mlplatform.datamodule.panel import Float32, Int64, Panel
from mlplatform.datamodule.samples import WindowSamples, complete_origins
from mlplatform.datamodule.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

    from mlplatform.preprocessing.manager import TransformManager

CONTEXT_COLUMN = "is_context"


class TimeSeriesDataModule(DataModule):
    """Forecast samples. Rows marked `is_context` may be looked at but not forecast."""

    def _sample_rows(self, frame: pd.DataFrame) -> Int64:
        rows = complete_origins(self.panel, self.config.targets, self.config.lookback, self.config.horizon)
        if CONTEXT_COLUMN in frame:
            rows = rows[~frame[CONTEXT_COLUMN].to_numpy(dtype=bool)[rows + 1]]
        return rows

    def index(self) -> SampleIndex:
        """Return origins and times."""
        step = np.timedelta64(self.config.dataset.step)
        return SampleIndex(self.rows, self.panel.timestamps, step, self.config.horizon)

    def samples(self, manager: TransformManager, transformed: Panel, rows: Int64) -> WindowSamples:
        """Return the windows whose origins are `rows`."""
        del manager
        config = self.config
        return window_samples(
            transformed, config.features.columns, config.targets, config.lookback, config.horizon, rows
        )

    def truth(self, manager: TransformManager, rows: Int64) -> Float32:
        """Return targets in original units, of shape (samples, horizon, targets)."""
        del manager
        targets = self.panel.matrix(self.config.targets)
        windows = np.lib.stride_tricks.sliding_window_view(targets, self.config.horizon, axis=0)
        return np.ascontiguousarray(windows[rows + 1].transpose(0, 2, 1))

    def invert(self, manager: TransformManager, outputs: Float32) -> Float32:
        """Return a forecast of shape (samples, horizon, targets) in original units."""
        return invert_targets(manager, self.config.targets, outputs)

    def spec(self, manager: TransformManager) -> ModelSpec:
        """Return the shape of the forecast."""
        del manager
        config = self.config
        return ModelSpec(
            task=config.task,
            channels=config.features.columns,
            targets=tuple(config.features.columns.index(target) for target in config.targets),
            lookback=config.lookback,
            horizon=config.horizon,
            step_seconds=int(config.dataset.step.total_seconds()),
        )


def window_samples(
    transformed: Panel, channels: Sequence[str], targets: Sequence[str], lookback: int, horizon: int, origins: Int64
) -> WindowSamples:
    """Return windows over a preprocessed panel; training and serving both cut theirs here."""
    return WindowSamples(
        values=transformed.matrix(channels),
        timestamps=transformed.timestamps,
        origins=origins,
        channels=tuple(channels),
        targets=tuple(list(channels).index(target) for target in targets),
        lookback=lookback,
        horizon=horizon,
    )


def invert_targets(manager: TransformManager, targets: Sequence[str], outputs: Float32) -> Float32:
    """Return a forecast of shape (samples, horizon, targets) in original units."""
    inverted = np.empty_like(outputs)
    for position, target in enumerate(targets):
        inverted[:, :, position] = manager.invert(outputs[:, :, position], target)
    return inverted
