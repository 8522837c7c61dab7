"""The contract of data modules: from the rows of a split to samples, truths and folds.

A data module holds the rows in original units. It never fits anything; a TransformManager fitted by the caller turns
its rows into samples.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule.folds import Fold, SampleIndex, Splitter, row_groups
from mlplatform.datamodule.identity import Digests
from mlplatform.datamodule.panel import Float32, Int64, Panel
from mlplatform.datamodule.preprocessor import Preprocessor
from mlplatform.datamodule.samples import Samples
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.plugins import SPLITTERS

if TYPE_CHECKING:
    import pandas as pd


class DataModule(ABC):
    """Rows of one split part of an experiment.

    Attributes:
        config: the experiment.
        panel: features and targets in original units.
        rows: row of every usable sample, of shape (samples,).
        groups: group of every row, of shape (rows,), for splitters by groups.
        padding: rows without values that begin every entity.
        identities: digest of every row, of shape (rows,); None if folds are cut by position, as they once were.
    """

    padding: int = 0

    def __init__(self, config: ExperimentConfig, frame: pd.DataFrame) -> None:
        names = (*config.features.columns, *(t for t in config.targets if t not in config.features.columns))
        self.config = config
        self.panel = Panel.from_frame(frame, names)
        self.rows = self._sample_rows(frame)
        self.identities = self._identities(frame) if config.split.membership == "identity" else None
        # Where nothing names the entities of a table they are row numbers, which copies of a row do not share.
        unnamed = config.dataset.kind == "tabular" and config.dataset.entity_column is None
        self.groups = row_groups(config.split.cv, frame, self.identities if unnamed else None)

    @abstractmethod
    def _sample_rows(self, frame: pd.DataFrame) -> Int64:
        """Return the rows that can be samples."""

    @abstractmethod
    def _identities(self, frame: pd.DataFrame) -> Digests:
        """Return the digest of every row, of shape (rows,)."""

    @abstractmethod
    def index(self) -> SampleIndex:
        """Return what a splitter needs to know."""

    @abstractmethod
    def samples(self, manager: Preprocessor, transformed: Panel, rows: Int64) -> Samples:
        """Return the samples at `rows` of the panel that `manager` transformed."""

    @abstractmethod
    def truth(self, manager: Preprocessor, rows: Int64) -> Float32:
        """Return what a forecast of the samples should have been, in original units (or class indices)."""

    @abstractmethod
    def invert(self, manager: Preprocessor, outputs: Float32) -> Float32:
        """Return model outputs in original units; probabilities are returned as they are."""

    @abstractmethod
    def spec(self, manager: Preprocessor) -> ModelSpec:
        """Return the shape of the problem for the models."""

    def folds(self) -> tuple[Fold, ...]:
        """Return the cross-validation folds of these rows.

        Raises:
            ValueError: if there are too few samples.
        """
        split = self.config.split
        plugin = SPLITTERS.get(split.cv.name)
        splitter: Splitter = plugin(plugin.Params.model_validate(split.cv.params), split.folds, split.seed)
        return splitter.split(self.index())

    def with_history(self, rows: int) -> Self:
        """Return the same rows with only the samples that have so many of their entity's rows up to and with their own.

        This is what serving asks for. Where a part begins with the context of its entities, only younger ones lose any.
        """
        return self.only(self.panel.history >= rows)

    def only(self, rows: npt.NDArray[np.bool_]) -> Self:
        """Return the same rows with only the samples at the rows where the mask, of shape (rows,), is true."""
        chosen = copy.copy(self)
        chosen.rows = self.rows[rows[self.rows]]
        return chosen

    @property
    def left_out(self) -> dict[str, int]:
        """Entities without any sample -> their rows."""
        sampled = set(self.panel.row_entities[self.rows].tolist())
        lengths = np.diff(self.panel.offsets) - self.padding
        rows = zip(self.panel.entity_ids.tolist(), lengths.tolist(), strict=True)
        return {str(entity): count for entity, count in rows if entity not in sampled}

    @property
    def is_padding(self) -> npt.NDArray[np.bool_]:
        """Whether a row was added before the first of its entity, of shape (rows,); nothing is fitted on those."""
        padding: npt.NDArray[np.bool_] = self.panel.history <= self.padding
        return padding

    def row_mask(self, rows: Int64) -> npt.NDArray[np.bool_]:
        """Return a mask over the panel's rows."""
        mask = np.zeros(self.panel.rows, dtype=bool)
        mask[rows] = True
        return mask
