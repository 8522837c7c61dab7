"""Tabular data: one sample per row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlplatform.datamodule.base import DataModule
from mlplatform.datamodule.folds import SampleIndex
from mlplatform.datamodule.identity import Digests, RowIdentity
from mlplatform.datamodule.panel import Float32, Int64, Panel
from mlplatform.datamodule.preprocessor import Preprocessor
from mlplatform.datamodule.samples import TabularSamples
from mlplatform.datamodule.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd


class TabularDataModule(DataModule):
    """Regression and classification samples. Rows without a target are left out."""

    @property
    def target(self) -> str:
        """Name of the target column."""
        return self.config.targets[0]

    def _sample_rows(self, frame: pd.DataFrame) -> Int64:
        return np.flatnonzero(frame[self.target].notna().to_numpy())

    def _identities(self, frame: pd.DataFrame) -> Digests:
        return RowIdentity.of(self.config.dataset).within(frame.columns).digests(frame)

    def index(self) -> SampleIndex:
        """Return rows, groups and, for classification, labels."""
        labels = self.panel.columns[self.target] if self.config.task == "classification" else None
        step = np.timedelta64(0)
        return SampleIndex(self.rows, self.panel.timestamps, step, 0, labels, self.groups, self.identities)

    def samples(self, manager: Preprocessor, transformed: Panel, rows: Int64) -> TabularSamples:
        """Return the feature matrix of `rows`."""
        classes = len(manager.classes(self.target)) if self.config.task == "classification" else 0
        return tabular_samples(transformed, self.config.features.columns, self.target, classes, rows)

    def truth(self, manager: Preprocessor, rows: Int64) -> Float32:
        """Return targets in original units, or class indices, of shape (samples,).

        Raises:
            ValueError: if a class does not occur in the rows that `manager` was fitted on.
        """
        if self.config.task == "classification":
            codes = {label: code for code, label in enumerate(manager.classes(self.target))}
            labels = [str(label) for label in self.panel.columns[self.target][rows]]
            unseen = sorted(set(labels) - set(codes))
            if unseen:
                raise ValueError(
                    f"column {self.target!r} has the classes {', '.join(unseen)}, which do not occur in the training "
                    f"rows ({', '.join(codes)}); use a stratified split, fewer folds or more data"
                )
            return np.asarray([codes[label] for label in labels], dtype=np.float32)
        return self.panel.columns[self.target][rows].astype(np.float32)

    def invert(self, manager: Preprocessor, outputs: Float32) -> Float32:
        """Return a regression in original units; probabilities as they are."""
        return outputs if self.config.task == "classification" else manager.invert(outputs, self.target)

    def spec(self, manager: Preprocessor) -> ModelSpec:
        """Return the shape of the problem."""
        classes = len(manager.classes(self.target)) if self.config.task == "classification" else 0
        return ModelSpec(
            task=self.config.task,
            channels=self.config.features.columns,
            classes=classes,
            quantiles=self.config.uncertainty.quantiles,
        )


def tabular_samples(
    transformed: Panel, channels: Sequence[str], target: str | None, classes: int, rows: Int64 | None = None
) -> TabularSamples:
    """Return the feature matrix of a preprocessed panel; training and serving both build theirs here."""
    chosen: slice | Int64 = slice(None) if rows is None else rows
    known = target is not None and target in transformed.columns
    labels = transformed.columns[target][chosen].astype(np.float32) if known and target else np.zeros(0, np.float32)
    return TabularSamples(
        values=transformed.matrix(channels)[chosen], labels=labels, channels=tuple(channels), classes=classes
    )
