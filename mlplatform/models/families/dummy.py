"""The tabular floor: predict the training mean, or the training shares of the classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from typing_extensions import override

from mlplatform.datamodule import Float32, TabularSamples
from mlplatform.models.base import DirectFitModel, FitOptions, FitResult, ModelParams, as_float32
from mlplatform.plugins import MODELS


@MODELS.register("dummy")
class Dummy(DirectFitModel[TabularSamples]):
    """Ignore the features."""

    tasks = frozenset({"regression", "classification"})
    Params = ModelParams
    is_naive = True
    is_exact = True

    @override
    def _fit(self, train: TabularSamples, validation: TabularSamples | None, options: FitOptions) -> FitResult:
        """Learn the mean, or the share of every class."""
        if self.spec.task == "classification":
            counts = np.bincount(train.labels.astype(np.int64), minlength=self.spec.classes)
            self.answer_ = as_float32(counts / counts.sum())
        else:
            self.answer_ = as_float32([np.mean(train.labels, dtype=np.float64)])
        return FitResult()

    def predict(self, samples: TabularSamples) -> Float32:
        """Return the same answer for every sample."""
        shape = (len(samples), self.spec.classes) if self.spec.task == "classification" else (len(samples),)
        return np.array(np.broadcast_to(self.answer_, shape))

    def save(self, folder: Path) -> None:
        """Write the answer."""
        np.save(folder / "answer.npy", self.answer_, allow_pickle=False)

    def restore(self, folder: Path) -> None:
        """Read the answer."""
        self.answer_ = np.load(folder / "answer.npy", allow_pickle=False)
