"""Folds made ready for fitting: preprocessed samples and the truth they are scored against."""

from __future__ import annotations

from dataclasses import dataclass

from mlplatform.datamodule import DataModule, Float32, Fold, Int64, ModelSpec, Samples
from mlplatform.models import Intervals
from mlplatform.preprocessing import TransformManager
from mlplatform.training.evaluation import seasonal_scale
from mlplatform.training.metrics import Bounds, evaluate, reading


@dataclass(frozen=True)
class FoldData:
    """One fold, ready to fit and score any number of models on.

    Attributes:
        name: partition key, for example `fold_0`.
        train, validation: preprocessed samples.
        truth: of the validation samples, in original units.
        scale: what MASE divides by, from the rows that the fold is fitted on; `None` unless the experiment asks for it.
    """

    name: str
    module: DataModule
    manager: TransformManager
    train: Samples
    validation: Samples
    truth: Float32
    scale: Float32 | None = None

    @property
    def spec(self) -> ModelSpec:
        """Shape of the problem."""
        return self.module.spec(self.manager)

    def score(self, outputs: Float32) -> dict[str, float]:
        """Return the experiment's metrics, in original units, of a prediction for the validation samples.

        Metrics that read prediction intervals are left out; `score_bounds` has them.
        """
        return evaluate(
            self.module.config.metrics, self.truth, self.module.invert(self.manager, outputs), None, self.scale
        )

    def score_bounds(self, bounds: Intervals, coverage: float) -> dict[str, float]:
        """Return the same for a prediction with a model's own bounds, metrics of the bounds included."""
        point, lower, upper = (self.module.invert(self.manager, outputs) for outputs in bounds)
        return evaluate(self.module.config.metrics, self.truth, point, Bounds(lower, upper, coverage), self.scale)


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
        scale=_scale(module, fold),
    )


def _scale(module: DataModule, fold: Fold) -> Float32 | None:
    if not reading(module.config.metrics, "scale"):
        return None
    return seasonal_scale(
        module.panel.take(module.row_mask(fold.fit_rows)), module.config.targets, module.config.season
    )
