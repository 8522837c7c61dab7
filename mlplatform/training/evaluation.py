"""Scores of a fitted pair on held-out rows."""

from __future__ import annotations

from mlplatform.datamodule.base import DataModule
from mlplatform.datamodule.samples import WindowSamples
from mlplatform.models.base import Model
from mlplatform.preprocessing.manager import TransformManager
from mlplatform.training.metrics import evaluate


def score_on(module: DataModule, manager: TransformManager, model: Model) -> dict[str, float]:
    """Score a pair on all samples of a split part.

    Returns:
        The experiment's metrics in original units and, for forecasts, the same with the suffix `_scaled` in the space
        of the preprocessor that was fitted on the training rows.

    Raises:
        ValueError: if the part holds no sample.
    """
    config = module.config
    samples = module.samples(manager, manager.transform(module.panel), module.rows)
    if not len(samples):
        raise ValueError(
            f"no sample of {config.name!r} fits into this part of the split: lookback {config.lookback}, "
            f"horizon {config.horizon}, {module.panel.rows} rows"
        )
    outputs = model.predict(samples)
    scores = evaluate(config.metrics, module.truth(manager, module.rows), module.invert(manager, outputs))
    if isinstance(samples, WindowSamples):
        scaled = evaluate(config.metrics, samples.outputs(), outputs)
        scores |= {f"{name}_scaled": value for name, value in scaled.items()}
    return scores
