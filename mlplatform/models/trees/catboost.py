"""What the CatBoost families share: the fit with its progress, the losses, and storage.

A model always runs on one thread: its bits do not depend on the machine's number of cores, and the forecast family
runs whole models side by side instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlplatform.datamodule import Float32
from mlplatform.models.base import ProgressCallback
from mlplatform.models.trees.counts import LEAST_MEAN, LossParams
from mlplatform.models.trees.fitted import Boosted

if TYPE_CHECKING:
    import catboost

FIXED = {"task_type": "CPU", "thread_count": 1, "allow_writing_files": False, "verbose": False}


def fit_catboost(
    settings: Mapping[str, Any],
    train: tuple[Float32, Float32],
    held_out: tuple[Float32, Float32] | None,
    iterations: int,
    patience: int | None,
    report: ProgressCallback | None,
) -> Boosted:
    """Grow trees on features and labels.

    Parameters:
        settings: CatBoost's own, with loss and seed.
        iterations: the most trees to grow, or with `patience` of `None` exactly how many.
        patience: trees that early stopping waits for an improvement; it needs held-out data.
        report: called after every tree with the best loss on held-out data so far; what it raises ends the fit.
    """
    import catboost

    stops_early = held_out is not None and patience is not None
    stopping = {"od_type": "Iter", "od_wait": patience} if stops_early else {}
    model = catboost.CatBoost({**settings, **FIXED, **stopping, "iterations": iterations})
    progress = None if report is None or held_out is None else _Progress(report)
    # CatBoost cuts the model itself: its `shrink` refuses models in which some tree has found no split.
    model.fit(
        catboost.Pool(*train, thread_count=1),
        eval_set=None if held_out is None else catboost.Pool(*held_out, thread_count=1),
        use_best_model=stops_early,
        callbacks=None if progress is None else [progress],
    )
    if progress is not None and progress.error is not None:
        raise progress.error
    if held_out is None:
        return Boosted(model, iterations)
    (history,) = model.get_evals_result()["validation"].values()
    return Boosted(model, model.tree_count_ if stops_early else iterations, tuple(map(float, history)))


def unchanging(features: Float32, columns: Sequence[str]) -> Iterator[str]:
    """Yield that CatBoost cannot learn from features, if none of them changes.

    Parameters:
        columns: what the features are made of.
    """
    if len(features) and ((features == features[:1]) | (np.isnan(features) & np.isnan(features[:1]))).all():
        names = " and ".join(filter(None, (", ".join(map(repr, columns[:-1])), repr(columns[-1]))))
        yield (
            f"learns from inputs that change, but {names} never {'change' if len(columns) > 1 else 'changes'} in the "
            "training rows; name other columns in features.columns, or use another family"
        )


def fit_counts(
    settings: Mapping[str, Any], train: tuple[Float32, Float32], held_out: tuple[Float32, Float32] | None, **how: Any
) -> Boosted:
    """Grow trees on labels that are counts; parameters as of `fit_catboost`.

    CatBoost starts from a mean of 1, from which its first steps to a large one are too long. So labels are divided by
    their mean, and its logarithm is added to the answers.
    """
    mean = max(float(train[1].mean(dtype=np.float64)), LEAST_MEAN)
    unit = np.float32(mean)
    scaled = None if held_out is None else (held_out[0], held_out[1] / unit)
    boosted = fit_catboost(settings, (train[0], train[1] / unit), scaled, **how)
    scale, bias = boosted.model.get_scale_and_bias()
    boosted.model.set_scale_and_bias(scale, float(bias) + float(np.log(mean)))
    return boosted


def regression_loss(quantiles: Sequence[float], params: LossParams) -> dict[str, Any]:
    """Return the settings of the loss for a mean, or for quantiles where there are any; labels may all be equal."""
    loss = {
        "absolute_error": "MAE",
        "poisson": "Poisson",
        "tweedie": f"Tweedie:variance_power={params.variance_power}",
    }.get(params.loss, "RMSE")
    if quantiles:
        kind = "MultiQuantile" if len(quantiles) > 1 else "Quantile"
        loss = f"{kind}:alpha={','.join(map(str, quantiles))}"
    return {"loss_function": loss, "allow_const_label": True}


def save_catboost(model: catboost.CatBoost, path: Path) -> None:
    """Write a model in CatBoost's binary format."""
    model.save_model(str(path), format="cbm")


def load_catboost(path: Path) -> catboost.CatBoost:
    """Read what `save_catboost` wrote."""
    import catboost

    return catboost.CatBoost().load_model(str(path), format="cbm")


class _Progress:
    """CatBoost's callback: reports every tree, and keeps what the report raises until CatBoost has stopped."""

    def __init__(self, report: ProgressCallback) -> None:
        self.report = report
        self.error: BaseException | None = None

    def after_iteration(self, info: Any) -> bool:
        """Return whether to go on."""
        (losses,) = info.metrics["validation"].values()
        try:
            self.report(info.iteration - 1, float(min(losses)))
        except BaseException as error:
            self.error = error
            return False
        return True
