"""Folds made ready for fitting: preprocessed samples and the truth they are scored against."""

from __future__ import annotations

from dataclasses import dataclass

from mlplatform.datamodule import DataModule, Float32, Fold, Int64, ModelSpec, Samples
from mlplatform.models import Bounds, Intervals
from mlplatform.preprocessing import TransformManager
from mlplatform.training.evaluation import scales_for
from mlplatform.training.metrics import evaluate
from mlplatform.training.per_series import Entities, Scale


@dataclass(frozen=True)
class FoldData:
    """One fold, ready to fit and score any number of models on.

    Attributes:
        name: partition key, for example `fold_0`.
        train, validation: preprocessed samples.
        truth: of the validation samples, in original units.
        entities: of the validation samples, of a forecast.
        scale: what their scaled errors are divided by, from the rows that the fold is fitted on; `None` unless the
            experiment asks for it.
    """

    name: str
    module: DataModule
    manager: TransformManager
    train: Samples
    validation: Samples
    truth: Float32
    entities: Entities | None = None
    scale: Scale | None = None

    @property
    def spec(self) -> ModelSpec:
        """Shape of the problem."""
        return self.module.spec(self.manager)

    def score(self, outputs: Float32) -> dict[str, float]:
        """Return the experiment's metrics, in original units, of a prediction for the validation samples.

        Metrics that read prediction intervals are left out; `score_bounds` has them.
        """
        return self._evaluate(self.module.invert(self.manager, outputs), None)

    def score_bounds(self, bounds: Intervals, coverage: float) -> dict[str, float]:
        """Return the same for a prediction with a model's own bounds, metrics of those of a coverage included."""
        point, lower, upper = (self.module.invert(self.manager, outputs) for outputs in bounds.at(coverage)[:3])
        return self._evaluate(point, Bounds(lower, upper, coverage))

    def _evaluate(self, point: Float32, bounds: Bounds | None) -> dict[str, float]:
        return evaluate(self.module.config.metrics, self.truth, point, bounds, self.scale, self.entities)


def fit_preprocessor(module: DataModule, fit_rows: Int64) -> TransformManager:
    """Return a TransformManager fitted on the given rows and no others."""
    rows = module.row_mask(fit_rows) & ~module.is_padding
    return TransformManager.for_experiment(module.config).fit(module.panel.take(rows))


def prepare_fold(name: str, module: DataModule, fold: Fold, manager: TransformManager) -> FoldData:
    """Apply a fold's preprocessor and cut its samples."""
    transformed = manager.transform(module.panel)
    config = module.config
    entities = module.panel.row_entities[fold.validation] if config.task == "forecast" else None
    scales = scales_for(config, module.panel.take(module.row_mask(fold.fit_rows)))
    return FoldData(
        name=name,
        module=module,
        manager=manager,
        train=module.samples(manager, transformed, fold.train),
        validation=module.samples(manager, transformed, fold.validation),
        truth=module.truth(manager, fold.validation),
        entities=entities,
        scale=None if scales is None else scales.at(module.panel.row_entities[fold.validation]),
    )
