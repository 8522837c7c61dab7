"""What can be known before any fit: whether the rows are such that every fold and part can be fitted and scored.

Each metric says what it demands of the truth; here is who asks, and what preprocessing and classification ask of a
fold. Not here: what the configuration alone can tell (`config`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule import DataModule, Fold, Int64, ModelSpec, Panel
from mlplatform.models import Model, create_model
from mlplatform.plugins import METRICS
from mlplatform.preprocessing import TransformManager
from mlplatform.training.cross_validation import fit_preprocessor
from mlplatform.training.evaluation import scales_for
from mlplatform.training.metrics import Truth


class DemandError(ValueError):
    """Rows that an experiment cannot be trained or scored on.

    Attributes:
        mistakes: one text per fold or part, and demand: where, which column, what was found and what to do.
    """

    def __init__(self, experiment: str, mistakes: tuple[str, ...]) -> None:
        lines = "\n  ".join(mistakes)
        super().__init__(f"experiment {experiment!r} cannot be trained and scored on these rows:\n  {lines}")
        self.mistakes = mistakes


def check_demands(train: DataModule, folds: Mapping[str, Fold], held_out: Mapping[str, DataModule]) -> None:
    """Refuse rows that a fit or a metric would fail on, before anything is fitted on them.

    Parameters:
        train: all training rows.
        folds: the folds of those rows, by name.
        held_out: part -> data module, with the samples that will be scored.

    Raises:
        DemandError: with all mistakes of all folds and parts.
    """
    mistakes = [mistake for name, fold in folds.items() for mistake in _fold_mistakes(train, name, fold)]
    mistakes += _held_out_mistakes(train, held_out)
    if mistakes:
        raise DemandError(train.config.name, tuple(mistakes))


def _fold_mistakes(module: DataModule, name: str, fold: Fold) -> Iterator[str]:
    remedy = "use fewer folds, or other sizes or another scheme in split.cv"
    for rows, role in ((fold.train, "training"), (fold.validation, "validation")):
        if not len(rows):
            yield f"{name}: has no {role} samples; {remedy}"
            return
    try:
        manager = fit_preprocessor(module, fold.fit_rows)
    except ValueError as error:
        # Which column it is, and what could not be learnt from it, is in the transform's own words.
        yield f"{name}: {error}; leave the column out of features.columns, or {remedy}"
        return
    transformed = manager.transform(module.panel)
    found = [
        *_missing_mistakes(module, name, manager, transformed),
        *_class_mistakes(module, name, manager),
        *_metric_mistakes(module, name, manager, fold.validation, (module, fold.fit_rows)),
    ]
    # Samples are made of rows in which nothing is wrong.
    found = found or [f"{name}: {refusal}, or {remedy}" for refusal in _refusals(module, manager, transformed, fold)]
    yield from found


def _held_out_mistakes(train: DataModule, held_out: Mapping[str, DataModule]) -> Iterator[str]:
    everything = np.arange(train.panel.rows)
    try:
        manager = fit_preprocessor(train, everything)
    except ValueError as error:
        yield f"train: {error}; leave the column out of features.columns"
        return
    for part, module in held_out.items():
        if len(module.rows):
            yield from _missing_mistakes(module, part, manager, manager.transform(module.panel))
            yield from _metric_mistakes(module, part, manager, module.rows, (train, everything))
        else:
            yield (
                f"{part}: has no samples among its {module.panel.rows} rows (lookback {module.config.lookback}, "
                f"horizon {module.config.horizon}); give it more rows in split, or shorten lookback and horizon"
            )


def _missing_mistakes(module: DataModule, name: str, manager: TransformManager, transformed: Panel) -> Iterator[str]:
    """Yield targets that preprocessing loses, and inputs that the model or a baseline is given without reading NaN."""
    config = module.config
    lost = dict(_lost(module.panel, transformed))
    samples, spec = module.samples(manager, transformed, module.rows), module.spec(manager)
    unread: dict[str, str] = {}
    for family, model in _models(config, spec):
        for column in model.unreadable(samples):
            unread.setdefault(column, family)
    for column in dict.fromkeys((*config.targets, *unread)):
        if column in lost:
            why = (
                "nothing can be scored without it" if column in config.targets else f"{unread[column]} cannot read that"
            )
            yield (
                f"{name}: column {column!r} goes down to {lost[column]:.6g}, which its preprocessing has no number "
                f"for, and {why}; use a larger shift or another transform, or send such rows to quarantine with min in "
                "dataset.columns"
            )
        elif column in unread:
            yield (
                f"{name}: column {column!r} has missing values, which {unread[column]} cannot read; add an impute step "
                "to the preprocessing, or use a family that reads them"
            )


def _refusals(module: DataModule, manager: TransformManager, transformed: Panel, fold: Fold) -> Iterator[str]:
    """Yield what keeps the model, or a baseline, from being fitted to a fold."""
    parts = [module.samples(manager, transformed, rows) for rows in (fold.train, fold.validation)]
    for family, model in _models(module.config, module.spec(manager)):
        yield from (f"{family} {refusal}" for refusal in model.refusals(*parts))


def _models(config: ExperimentConfig, spec: ModelSpec) -> Iterator[tuple[str, Model]]:
    """Yield the names of the model's family and of the baselines', each with an unfitted model."""
    for family, params in ((config.model.family, config.model.params), *((b.name, b.params) for b in config.baselines)):
        yield family, create_model(family, dict(params), spec)


def _lost(panel: Panel, transformed: Panel) -> Iterator[tuple[str, float]]:
    """Yield the columns of numbers in which a value became missing, and the least such value."""
    for column, values in panel.columns.items():
        if np.issubdtype(values.dtype, np.floating) and column in transformed.columns:
            gone = np.isfinite(values) & ~np.isfinite(transformed.columns[column].astype(np.float32, copy=False))
            if gone.any():
                yield column, float(values[gone].min())


def _class_mistakes(module: DataModule, name: str, manager: TransformManager) -> Iterator[str]:
    if module.config.task != "classification":
        return
    (target,) = module.config.targets
    classes = manager.classes(target)
    if len(classes) < 2:
        yield (
            f"{name}: column {target!r} has only the class {classes[0]!r} in the training rows, so there is nothing to "
            "tell apart; use a stratified scheme in split.cv, fewer folds or more data"
        )


def _metric_mistakes(
    module: DataModule, name: str, manager: TransformManager, rows: Int64, fitted: tuple[DataModule, Int64]
) -> Iterator[str]:
    """Yield what the experiment's metrics refuse in the truth of the samples at `rows`.

    Parameters:
        fitted: the rows that the scored model is fitted on.
    """
    config = module.config
    try:
        values = module.truth(manager, rows)
    except ValueError as error:
        yield f"{name}: {error}"
        return
    source, fit_rows = fitted
    scales = scales_for(config, source.panel.take(source.row_mask(fit_rows)))
    classes = manager.classes(config.targets[0]) if config.task == "classification" else ()
    # A series that is not scored lends its scale to no other that has rows of its own.
    scored = None if scales is None else scales.at(module.panel.row_entities[rows])
    changes = None if scored is None else np.asarray((scored.absolute > 0).any(axis=0))
    truth = Truth(values, config.targets, classes, changes)
    for metric in config.metrics:
        demands = METRICS.get(metric).demands
        yield from () if demands is None else (f"{name}: metric {metric!r} {each}" for each in demands(truth))
