"""Folds made ready for fitting: preprocessed samples and the truth they are scored against."""

from __future__ import annotations

from dataclasses import dataclass

from mlplatform.datamodule.base import DataModule
from mlplatform.datamodule.folds import Fold
from mlplatform.datamodule.panel import Float32, Int64
from mlplatform.datamodule.samples import Samples
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.preprocessing.manager import TransformManager
from mlplatform.training.metrics import evaluate


@dataclass(frozen=True)
class FoldData:
    """One fold, ready to fit and score any number of models on.

    Attributes:
        name: partition key, for example `fold_0`.
        train, validation: preprocessed samples.
        truth: of the validation samples, in original units.
    """

    name: str
    module: DataModule
    manager: TransformManager
    train: Samples
    validation: Samples
    truth: Float32

    @property
    def spec(self) -> ModelSpec:
        """Shape of the problem."""
        return self.module.spec(self.manager)

    def score(self, outputs: Float32) -> dict[str, float]:
        """Return the experiment's metrics, in original units, of a prediction for the validation samples."""
        return evaluate(self.module.config.metrics, self.truth, self.module.invert(self.manager, outputs))


def fit_preprocessor(module: DataModule, fit_rows: Int64) -> TransformManager:
    """Return a TransformManager fitted on the given rows and no others."""
    return TransformManager.for_experiment(module.config).fit(module.panel.take(module.row_mask(fit_rows)))


def prepare_fold(name: str, module: DataModule, fold: Fold, manager: TransformManager) -> FoldData:
    """Apply a fold's preprocessor and cut its samples."""
    transformed = manager.transform(module.panel)
    return FoldData(
        name=name,
        module=module,
        manager=manager,
        train=module.samples(manager, transformed, fold.train),
        validation=module.samples(manager, transformed, fold.validation),
        truth=module.truth(manager, fold.validation),
    )
