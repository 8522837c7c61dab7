"""Time series: windows over the rows of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule.base import DataModule
from mlplatform.datamodule.folds import SampleIndex
from mlplatform.datamodule.identity import Digests, series_digests
from mlplatform.datamodule.padding import CONTEXT_COLUMN, padded_for, padding_of
from mlplatform.datamodule.panel import Float32, Int64, Panel
from mlplatform.datamodule.preprocessor import Preprocessor
from mlplatform.datamodule.samples import WindowSamples, complete_origins
from mlplatform.datamodule.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd


class TimeSeriesDataModule(DataModule):
    """Forecast samples. Rows marked `is_context` may be looked at but not forecast.

    With a `history` every series begins with rows without values, so that the rows of the panel are more than those of
    the frame; `padded_for` adds the same to a frame.

    Raises:
        ValueError: if an entity belongs to several groups; its windows would cross from one to another.
    """

    def __init__(self, config: ExperimentConfig, frame: pd.DataFrame) -> None:
        self.padding = padding_of(config)
        super().__init__(config, padded_for(config, frame))
        changes = np.flatnonzero(self.groups[1:] != self.groups[:-1]) + 1
        inside = np.setdiff1d(changes, self.panel.offsets)
        if len(inside):
            row = int(inside[0])
            raise ValueError(
                f"entity {self.panel.row_entities[row]!r} changes from group {self.groups[row - 1]!r} to "
                f"{self.groups[row]!r} at {self.panel.timestamps[row]}; the groups of a forecast must be constant per "
                "entity: choose another split.cv.params.column"
            )

    def _sample_rows(self, frame: pd.DataFrame) -> Int64:
        rows = complete_origins(self.panel, self.config.targets, self.config.lookback, self.config.horizon)
        rows = rows[self.panel.history[rows] >= self.padding + self.config.lookback]
        if CONTEXT_COLUMN in frame:
            rows = rows[~frame[CONTEXT_COLUMN].to_numpy(dtype=bool)[rows + 1]]
        return rows

    def _identities(self, frame: pd.DataFrame) -> Digests:
        return series_digests(frame)

    def index(self) -> SampleIndex:
        """Return origins, times and groups."""
        dataset = self.config.dataset
        return SampleIndex(
            self.rows,
            self.panel.timestamps,
            np.timedelta64(dataset.nominal_step),
            self.config.horizon,
            groups=self.groups,
            identities=self.identities,
            calendar=dataset.calendar,
        )

    def samples(self, manager: Preprocessor, transformed: Panel, rows: Int64) -> WindowSamples:
        """Return the windows whose origins are `rows`."""
        return window_samples(transformed, self.spec(manager), rows)

    @override
    def truth(self, manager: Preprocessor, rows: Int64) -> Float32:
        """Return targets in original units, of shape (samples, horizon, targets)."""
        targets = self.panel.matrix(self.config.targets)
        windows = np.lib.stride_tricks.sliding_window_view(targets, self.config.horizon, axis=0)
        return np.ascontiguousarray(windows[rows + 1].transpose(0, 2, 1))

    def invert(self, manager: Preprocessor, outputs: Float32) -> Float32:
        """Return a forecast of shape (samples, horizon, targets) in original units."""
        return invert_targets(manager, self.config.targets, outputs)

    def spec(self, manager: Preprocessor) -> ModelSpec:
        """Return the shape of the forecast."""
        config, features = self.config, self.config.features
        sizes = [
            len(manager.classes(name)) if name in config.dataset.category_columns else 0 for name in features.columns
        ]
        return ModelSpec(
            task=config.task,
            channels=config.features.columns,
            targets=tuple(config.features.columns.index(target) for target in config.targets),
            lookback=config.lookback,
            history=config.history or 0,
            horizon=config.horizon,
            step_seconds=int(config.dataset.nominal_step.total_seconds()),
            known=features.positions(features.known_future),
            static=features.positions(features.static),
            cardinalities=tuple(sizes) if any(sizes) else (),
            quantiles=config.uncertainty.quantiles,
            scaling="window" if manager.windowed else "",
            calendar_text=config.dataset.calendar.stored_text,
            time_text="" if features.calendar is None else features.calendar.text,
            # Experiments of before, which say nothing about scaling, train again as they did.
            season=0 if config.preprocessing.scaling == "none" else config.season,
        )


def window_samples(transformed: Panel, spec: ModelSpec, origins: Int64) -> WindowSamples:
    """Return windows over a preprocessed panel; training and serving both cut theirs here."""
    return WindowSamples(
        values=transformed.matrix(spec.channels),
        timestamps=transformed.timestamps,
        origins=origins,
        channels=spec.channels,
        targets=spec.targets,
        lookback=spec.lookback,
        horizon=spec.horizon,
        known=spec.known,
        static=spec.static,
        step_seconds=spec.step_seconds,
        calendar_text=spec.calendar_text,
    )


def invert_targets(manager: Preprocessor, targets: Sequence[str], outputs: Float32) -> Float32:
    """Return a forecast of shape (samples, horizon, targets) in original units."""
    inverted = np.empty_like(outputs)
    for position, target in enumerate(targets):
        inverted[:, :, position] = manager.invert(outputs[:, :, position], target)
    return inverted
