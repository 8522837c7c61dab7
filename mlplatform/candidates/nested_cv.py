"""Nested cross-validation: the whole training procedure, tuning included, scored on rows it never saw.

Scores of tuned models on the folds they were tuned on are optimistic, the more so the longer the search (Cawley and
Talbot, On Over-fitting in Model Selection and Subsequent Selection Bias in Performance Evaluation, JMLR 2010). Here
every outer fold gives its training rows to the procedure: inner folds, tuning, refit. What comes out is scored on the
outer test rows. The result speaks about the procedure, not about one model; no model is kept.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mlplatform.candidates.candidate import Candidate, train_candidate
from mlplatform.datamodule import DataModule, Fold, Int64, Splitter
from mlplatform.models import Iterations
from mlplatform.plugins import SPLITTERS
from mlplatform.training import RunCheckpoints, check_demands, fit_preprocessor, prepare_fold

RESULT_FILE = "result.json"
TEST = "outer_test"

Module = TypeVar("Module", bound=DataModule)


@dataclass(frozen=True)
class OuterResult:
    """What the procedure achieved on one outer fold.

    Attributes:
        name: partition key, for example `outer_0`.
        params: the hyperparameters that the inner folds chose.
        iterations: boosting rounds or epochs of the refit.
        inner: metrics of the chosen trial, means over the inner folds, in original units.
        outer: metrics on the outer test samples, in original units.
        baselines: baseline -> metrics on the same samples.
        train_samples, test_samples: numbers of samples on either side of the outer fold.
        trials: number of trials of the inner search.
    """

    name: str
    params: dict[str, Any]
    iterations: Iterations
    inner: dict[str, float]
    outer: dict[str, float]
    baselines: dict[str, dict[str, float]]
    train_samples: int
    test_samples: int
    trials: int

    def save(self, folder: Path) -> None:
        """Write the result as JSON into an existing folder."""
        (folder / RESULT_FILE).write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, folder: Path) -> OuterResult:
        """Read what `save` wrote."""
        document = json.loads((folder / RESULT_FILE).read_text())
        return cls(**{**document, "iterations": tuple(document["iterations"])})


def outer_folds(module: DataModule) -> tuple[Fold, ...]:
    """Return the outer folds of an experiment's training rows.

    They are cut by the experiment's own scheme, except that folds by time always expand: an outer fold trains on all
    that is known before its test block, whatever windows the inner folds then choose from it.

    Raises:
        ValueError: if nested cross-validation is off, or there are too few samples.
    """
    config = module.config
    count, scheme = config.nested.outer_folds, config.split.cv
    if not count:
        raise ValueError(f"nested.outer_folds of {config.name!r} is 0; set it to the number of outer folds")
    plugin = SPLITTERS.get(scheme.name)
    splitter: Splitter = plugin(plugin.Params.model_validate(scheme.params), count, config.split.seed)
    return splitter.outer().split(module.index())


def outer_training(module: Module, fold: Fold) -> Module:
    """Return a data module that holds the outer training rows and nothing else."""
    return _part(module, module.row_mask(fold.fit_rows), fold.train)


def outer_test(module: Module, fold: Fold) -> Module:
    """Return a data module of the outer test samples.

    Of folds by time it also holds the rows before, which their windows look back into, and ends with the last target.
    """
    if SPLITTERS.get(module.config.split.cv.name).separates == "time":
        times = module.panel.timestamps
        rows = times <= times[fold.validation + module.config.horizon].max()
    else:
        rows = ~module.row_mask(fold.fit_rows)
    return _part(module, rows, fold.validation)


def inner_folds(train: DataModule) -> dict[str, Fold]:
    """Return the inner folds of an outer fold's training rows, by name.

    Raises:
        ValueError: if the rows are too few for them.
    """
    try:
        return dict(zip(train.config.split.fold_names, train.folds(), strict=True))
    except ValueError as error:
        raise ValueError(
            f"the {len(train.rows)} training samples of an outer fold cannot be split again: {error}; or use fewer "
            f"nested.outer_folds than {train.config.nested.outer_folds}"
        ) from error


def check_outer_folds(module: DataModule, folds: Mapping[str, Fold]) -> None:
    """Refuse rows that the procedure would fail on in one of the outer folds, before the first fit.

    Raises:
        DemandError: with all mistakes of one outer fold; of its inner folds, and of its outer test rows.
        ValueError: as `inner_folds` does.
    """
    for name, fold in folds.items():
        train = outer_training(module, fold)
        inner = {f"{name}, inner {key}": each for key, each in inner_folds(train).items()}
        check_demands(train, inner, {f"{name}, test rows": outer_test(module, fold)})


def run_procedure(
    module: DataModule,
    fold: Fold,
    journal: Path,
    log: logging.Logger | None = None,
    held_out: Mapping[str, DataModule] | None = None,
    checkpoints: RunCheckpoints | None = None,
) -> Candidate:
    """Tune on inner folds of the outer training rows, and refit on all of them.

    Parameters:
        module: all training rows of the experiment, of which only the outer training rows are read.
        journal: file of the inner study's Optuna journal; a study found there goes on.
        held_out: what to score the refitted model and its baselines on.
        checkpoints: where fits keep their state; of this outer fold alone.

    Raises:
        ValueError: if the outer training rows are too few for the inner folds.
    """
    train = outer_training(module, fold)
    folds = [
        prepare_fold(name, train, each, fit_preprocessor(train, each.fit_rows))
        for name, each in inner_folds(train).items()
    ]
    return train_candidate(module.config, train, folds, held_out or {}, journal, log, checkpoints)


def score_outer_fold(
    name: str,
    module: DataModule,
    fold: Fold,
    journal: Path,
    log: logging.Logger | None = None,
    checkpoints: RunCheckpoints | None = None,
) -> OuterResult:
    """Run the procedure on one outer fold, and score what it made and the baselines on the outer test samples."""
    candidate = run_procedure(module, fold, journal, log, {TEST: outer_test(module, fold)}, checkpoints)
    report = candidate.report
    inner = report.candidate.folds
    return OuterResult(
        name=name,
        params=report.params,
        iterations=report.iterations,
        inner={metric: float(np.mean([scores[metric] for scores in inner])) for metric in inner[0]},
        outer=report.candidate.parts[TEST],
        baselines={baseline: each.parts[TEST] for baseline, each in report.baselines.items()},
        train_samples=len(fold.train),
        test_samples=len(fold.validation),
        trials=len(report.trials),
    )


def summary(results: Sequence[OuterResult], family: str, metric: str) -> list[dict[str, Any]]:
    """Return one row per model, the procedure first: mean and spread of a metric over the outer folds.

    Parameters:
        family: what to call the procedure.
    """
    scores = {family: [result.outer[metric] for result in results]}
    scores |= {name: [result.baselines[name][metric] for result in results] for name in results[0].baselines}
    return [
        {"model": name, f"{metric} mean": float(np.mean(values)), f"{metric} std": float(np.std(values))}
        for name, values in scores.items()
    ]


def scores(results: Sequence[OuterResult]) -> dict[str, float]:
    """Return all scores by MLflow name.

    `outer_<k>_<m>` is of the outer test rows, `outer_<k>_inner_<m>` of the inner folds, `outer_<m>_mean` and `_std` are
    over the outer folds; a baseline's start with `baseline_<name>_`.
    """
    flat = {f"{each.name}_inner_{metric}": value for each in results for metric, value in each.inner.items()}
    models = {"": [each.outer for each in results]}
    models |= {f"baseline_{name}_": [each.baselines[name] for each in results] for name in results[0].baselines}
    for prefix, outer in models.items():
        for each, metrics in zip(results, outer, strict=True):
            flat |= {f"{prefix}{each.name}_{metric}": value for metric, value in metrics.items()}
        for metric in outer[0]:
            values = [metrics[metric] for metrics in outer]
            flat[f"{prefix}outer_{metric}_mean"] = float(np.mean(values))
            flat[f"{prefix}outer_{metric}_std"] = float(np.std(values))
    return flat


def _part(module: Module, rows: npt.NDArray[np.bool_], samples: Int64) -> Module:
    """Return the data module over the rows where the mask is true, with the samples at the given rows."""
    part = copy.copy(module)
    moved = np.cumsum(rows) - 1
    part.panel, part.rows, part.groups = module.panel.take(rows), moved[samples], module.groups[rows]
    part.identities = None if module.identities is None else module.identities[rows]
    if (part.panel.history[part.rows] < module.panel.history[samples]).any() and module.padding:
        raise ValueError(
            f"split.cv.name {module.config.split.cv.name!r} cuts off the beginning of series, which history "
            f"{module.config.history} reads; leave history or nested.outer_folds out, or take another splitter"
        )
    return part
