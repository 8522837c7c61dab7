"""Scores of the tabular families on scikit-learn's diabetes and breast cancer, by nested cross-validation.

Five outer folds measure; inside the training part of each, Optuna searches the family's own space over three inner
folds, as the platform's tuner does: an inner validation part stops the fit early and scores it, and the family is
fitted again on the whole training part for the rounds that the inner folds found. Preprocessing is fitted on training
rows only. A figure is the median over three shuffles of the outer folds, of the mean over the folds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from figures import report

from mlplatform.datamodule.samples import TabularSamples
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.models.base import FitOptions, Model, create_model
from mlplatform.plugins import MODELS
from mlplatform.training.trainers import trainer_for
from mlplatform.tuning.search_space import suggest

SHUFFLES, OUTER, INNER, WORKERS = 3, 5, 3, 2
# Trials of each family's search; the forest is slow to grow and has little to gain.
TRIALS = {"linear": 10, "xgboost_tabular": 25, "catboost_tabular": 20, "random_forest_tabular": 6}
AIMS = {("diabetes", "xgboost_tabular"): 0.47, ("diabetes", "catboost_tabular"): 0.47,
        ("breast_cancer", "xgboost_tabular"): 0.97, ("breast_cancer", "catboost_tabular"): 0.97}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A data set: `values` of shape (rows, features) and `labels` of shape (rows,)."""

    spec: ModelSpec
    values: np.ndarray
    labels: np.ndarray

    def folds(self, rows: np.ndarray, count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Cut rows into training and held-out rows, `count` times; classes keep their shares."""
        from sklearn.model_selection import KFold, StratifiedKFold

        kind = KFold if self.spec.task == "regression" else StratifiedKFold
        for train, held_out in kind(count, shuffle=True, random_state=seed).split(rows, self.labels[rows]):
            yield rows[train], rows[held_out]

    def prepared(self, train: np.ndarray, held_out: np.ndarray) -> tuple[TabularSamples, TabularSamples]:
        """Return both parts in the scale of the training rows: features, and the target of a regression."""
        values = self._scaled(self.values, train)
        labels = self._scaled(self.labels, train) if self.spec.task == "regression" else self.labels
        first, second = (
            TabularSamples(values[rows].astype(np.float32), labels[rows].astype(np.float32), self.spec.channels,
                           self.spec.classes)
            for rows in (train, held_out)
        )  # fmt: skip
        return first, second

    def _scaled(self, numbers: np.ndarray, train: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = (numbers - numbers[train].mean(axis=0)) / numbers[train].std(axis=0)
        return scaled

    def score(self, model: Model, samples: TabularSamples) -> float:
        """Return R2, which no scaling of the target changes, or accuracy."""
        answers = model.predict(samples)
        if self.spec.task == "classification":
            return float((answers.argmax(axis=1) == samples.labels).mean())
        spread = samples.labels - samples.labels.mean()
        return 1.0 - float(((samples.labels - answers) ** 2).sum() / (spread**2).sum())

    def loss(self, model: Model, samples: TabularSamples) -> float:
        """Return what trials compete on: mean squared error, or log loss."""
        answers = model.predict(samples)
        if self.spec.task == "regression":
            return float(((samples.labels - answers) ** 2).mean())
        chosen = answers[np.arange(len(samples)), samples.labels.astype(np.int64)]
        return float(-np.log(np.maximum(chosen, 1e-7)).mean())


def main() -> None:
    """Report the median score of every family, with the linear model as peer and the untuned family beside it."""
    for name, score in (("diabetes", "R2"), ("breast_cancer", "accuracy")):
        scores: dict[tuple[str, bool], float] = {}
        for family in TRIALS:
            started = time.perf_counter()
            for tuned in (False, True):
                scores[family, tuned] = nested_score(name, family, tuned)
                aim = AIMS.get((name, family)) if tuned else None
                report("tabular_scores", f"{name} {family}, {'tuned' if tuned else 'default parameters'}",
                       scores[family, tuned], score, peer="linear, tuned" if family != "linear" else None,
                       peer_value=scores.get(("linear", True)) if family != "linear" else None,
                       aim=None if aim is None else f"at least {aim}",
                       met=None if aim is None else scores[family, tuned] >= aim)  # fmt: skip
            report("tabular_scores", f"{name} {family}: both", time.perf_counter() - started, "s")


def nested_score(name: str, family: str, tuned: bool) -> float:
    """Return the median over the shuffles of the mean score over the outer folds."""
    jobs = [(shuffle, fold) for shuffle in range(SHUFFLES) for fold in range(OUTER)]
    with ProcessPoolExecutor(WORKERS) as pool:
        found = list(pool.map(partial(outer_fold, name, family, tuned), jobs))
    means = [statistics.mean(found[start : start + OUTER]) for start in range(0, len(found), OUTER)]
    return statistics.median(means)


def outer_fold(name: str, family: str, tuned: bool, job: tuple[int, int]) -> float:
    """Return the score of one family on one outer fold, whose held-out rows nothing but the score has seen."""
    shuffle, fold = job
    table = load(name)
    train, held_out = list(table.folds(np.arange(len(table.labels)), OUTER, shuffle))[fold]
    inner = [table.prepared(*rows) for rows in table.folds(train, INNER, 100 + shuffle)]
    params = search(table, family, inner, shuffle) if tuned else {}
    _, iterations = inner_loss(table, family, params, inner)
    fit_part, held_out_part = table.prepared(train, held_out)
    model = create_model(family, params, table.spec)
    trainer_for(model).fit(model, fit_part, None, FitOptions(iterations=iterations, workers=1))
    return table.score(model, held_out_part)


def search(table: Table, family: str, inner: list[tuple[TabularSamples, TabularSamples]], seed: int) -> dict[str, Any]:
    """Return the best parameters of a search over the inner folds; the default parameters are its first trial."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = MODELS.get(family).search_space(table.spec.task)

    def objective(trial: optuna.Trial) -> float:
        return inner_loss(table, family, suggest(trial, space), inner)[0]

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    configured = MODELS.get(family).Params().model_dump(include=set(space))
    study.enqueue_trial(configured)
    study.optimize(objective, n_trials=TRIALS[family])
    return study.best_params


def inner_loss(
    table: Table, family: str, params: dict[str, Any], inner: list[tuple[TabularSamples, TabularSamples]]
) -> tuple[float, tuple[int, ...]]:
    """Return the mean loss over the inner folds, and their mean number of rounds."""
    losses, rounds = [], []
    for train, validation in inner:
        model = create_model(family, params, table.spec)
        result = trainer_for(model).fit(model, train, validation, FitOptions(workers=1))
        losses.append(table.loss(model, validation))
        rounds.append(result.iterations)
    return statistics.mean(losses), tuple(round(statistics.mean(each)) for each in zip(*rounds, strict=True))


def load(name: str) -> Table:
    """Read one of the data sets that come with scikit-learn."""
    from sklearn import datasets

    values, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
    channels = tuple(f"x{column}" for column in range(values.shape[1]))
    if name == "diabetes":
        return Table(ModelSpec("regression", channels), values, labels)
    return Table(ModelSpec("classification", channels, classes=2), values, labels)
