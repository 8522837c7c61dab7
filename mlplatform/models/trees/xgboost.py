"""What the XGBoost families share: parameters, quantised matrices, the fit with its progress, and storage.

A booster always runs on one thread. Its own threads meet at a barrier in every tree level, which on data of this size
costs more than it gains, and on a busy machine several times more; the forecast family runs whole boosters side by side
instead. One thread also makes a model's bits independent of the machine's number of cores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from typing_extensions import override

from mlplatform.config import SearchDimension
from mlplatform.datamodule import Float32
from mlplatform.models.base import ProgressCallback
from mlplatform.models.sample_cache import keep_latest
from mlplatform.models.trees.counts import LEAST_MEAN, LossParams
from mlplatform.models.trees.fitted import Boosted

if TYPE_CHECKING:
    import xgboost

BOOSTERS_FILE = "boosters.ubj"
INDEX_FILE = "index.json"


class BoostingParams(LossParams):
    """XGBoost's hyperparameters under their own names; `patience` is the number of rounds early stopping waits."""

    num_boost_round: int = Field(default=100, ge=1)
    patience: int = Field(default=10, ge=1)
    learning_rate: float = Field(default=0.1, gt=0, le=1)
    max_depth: int = Field(default=5, ge=1, le=16)
    min_child_weight: float = Field(default=1.0, ge=0)
    subsample: float = Field(default=1.0, gt=0, le=1)
    colsample_bytree: float = Field(default=1.0, gt=0, le=1)
    reg_lambda: float = Field(default=1.0, ge=0)
    max_bin: int = Field(default=256, ge=2)

    def booster_params(self, seed: int) -> dict[str, Any]:
        """Return what `xgboost.train` takes, without the objective."""
        own = self.model_dump(
            include={
                "learning_rate",
                "max_depth",
                "min_child_weight",
                "subsample",
                "colsample_bytree",
                "reg_lambda",
                "max_bin",
            }
        )
        return {**own, "tree_method": "hist", "seed": seed, "verbosity": 1, "nthread": 1}

    def objective(self, labels: Float32) -> dict[str, Any]:
        """Return the objective of a loss; those of counts start from the mean of the labels."""
        if not self.is_of_counts:
            return {"objective": {"absolute_error": "reg:absoluteerror"}.get(self.loss, "reg:squarederror")}
        base = {"base_score": max(float(labels.mean(dtype=np.float64)), LEAST_MEAN)}
        if self.loss == "poisson":
            return {"objective": "count:poisson", **base}
        return {"objective": "reg:tweedie", "tweedie_variance_power": self.variance_power, **base}


BOOSTING_SEARCH_SPACE: Mapping[str, SearchDimension] = {
    "learning_rate": SearchDimension(type="float", low=0.03, high=0.3, log=True),
    "max_depth": SearchDimension(type="int", low=3, high=7),
    "min_child_weight": SearchDimension(type="float", low=1.0, high=30.0, log=True),
    "subsample": SearchDimension(type="float", low=0.6, high=1.0),
    "colsample_bytree": SearchDimension(type="float", low=0.4, high=1.0),
    "reg_lambda": SearchDimension(type="float", low=0.1, high=30.0, log=True),
}


def quantile_matrix(
    cache: dict[Any, Any],
    features: Float32,
    max_bin: int,
    reference: xgboost.QuantileDMatrix | None = None,
    slot: int = 0,
) -> xgboost.QuantileDMatrix:
    """Return the quantised matrix of `features`, made once per cache, features, `max_bin`, reference and slot.

    Quantising costs more than a round of boosting, so it is shared by all horizons and by all trials of a fold. A
    matrix carries the labels of the booster at work on it; boosters that run side by side use different slots.
    The cache holds the matrices of the latest features and settings only.
    """
    import xgboost

    # What the setting identifies by address is kept beside the matrices, so that nothing else can take the address.
    kept: tuple[dict[int, Any], Float32] = keep_latest(
        cache, "quantile_matrix", (id(features), max_bin), lambda: ({}, features)
    )
    slots = kept[0]
    if slot not in slots or slots[slot][1] is not reference:
        slots[slot] = xgboost.QuantileDMatrix(features, max_bin=max_bin, ref=reference, nthread=1), reference
    quantised: xgboost.QuantileDMatrix = slots[slot][0]
    return quantised


def fit_booster(
    params: Mapping[str, Any],
    matrix: xgboost.QuantileDMatrix,
    held_out: xgboost.QuantileDMatrix | None,
    rounds: int,
    patience: int | None,
    report: ProgressCallback | None,
) -> Boosted:
    """Boost on labelled matrices.

    Parameters:
        params: XGBoost's own, with objective and seed.
        rounds: the most rounds, or with `patience` of `None` exactly how many.
        patience: rounds that early stopping waits for an improvement; it needs held-out data.
        report: called after every round with the best loss on held-out data so far; what it raises ends the fit.
    """
    import xgboost

    if held_out is None:
        return Boosted(xgboost.train(dict(params), matrix, rounds), rounds)
    scores: dict[str, dict[str, list[float]]] = {}
    booster = xgboost.train(
        dict(params),
        matrix,
        rounds,
        evals=[(held_out, "validation")],
        evals_result=scores,
        early_stopping_rounds=patience,
        verbose_eval=False,
        callbacks=_progress_callbacks(report),
    )
    (history,) = scores["validation"].values()
    best = rounds if patience is None else int(np.argmin(history)) + 1
    return Boosted(booster[:best], best, tuple(history))


def _progress_callbacks(report: ProgressCallback | None) -> list[xgboost.callback.TrainingCallback]:
    """Return the callbacks of `xgboost.train` that report the best validation loss so far after every round.

    What the report raises, for example to prune a trial, ends the training.
    """
    if report is None:
        return []
    from xgboost.callback import TrainingCallback

    tell: ProgressCallback = report

    class Progress(TrainingCallback):
        @override
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            (losses,) = evals_log["validation"].values()
            tell(epoch, float(min(losses)))
            return False

    return [Progress()]


def save_boosters(boosters: Sequence[xgboost.Booster], folder: Path) -> None:
    """Write boosters as UBJSON documents, one after another in one file, with an index of their lengths."""
    documents = [bytes(booster.save_raw("ubj")) for booster in boosters]
    (folder / BOOSTERS_FILE).write_bytes(b"".join(documents))
    (folder / INDEX_FILE).write_text(json.dumps([len(document) for document in documents]))


def load_boosters(folder: Path) -> list[xgboost.Booster]:
    """Read what `save_boosters` wrote."""
    import xgboost

    content = (folder / BOOSTERS_FILE).read_bytes()
    boosters = []
    start = 0
    for length in json.loads((folder / INDEX_FILE).read_text()):
        booster = xgboost.Booster()
        booster.load_model(bytearray(content[start : start + length]))
        booster.set_param({"nthread": 1})
        boosters.append(booster)
        start += length
    return boosters
