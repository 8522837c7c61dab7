"""Shapley values of tree ensembles, by the libraries that grew them, brought into the shape of a family's answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlplatform.datamodule import Float32, ModelSpec, TabularSamples, WindowSamples
from mlplatform.models.explanation import CannotExplainError, Contributions, Feature, Float64
from mlplatform.models.forecasting import StrategyParams, forecast, forecast_start, strategy_features, strategy_rows
from mlplatform.models.window_scale import window_scales

if TYPE_CHECKING:
    import catboost
    import xgboost

Answer = Callable[[Float32], Float32]
# From rows of features to shares, of shape (rows, outputs of all models, features and the base behind them).
Shares = Callable[[Float32], Float64]


def shares_of_boosters(boosters: Sequence[xgboost.Booster], features: Float32) -> Float64:
    """Return the shares in the margins of XGBoost's boosters, side by side."""
    import xgboost

    rows = xgboost.DMatrix(features, nthread=1)
    shares = [booster.predict(rows, pred_contribs=True, strict_shape=True) for booster in boosters]
    return np.concatenate(shares, axis=1).astype(np.float64)


def shares_of_catboost(models: Sequence[catboost.CatBoost], features: Float32) -> Float64:
    """Return the shares in the raw answers of CatBoost's models, side by side."""
    import catboost

    rows = catboost.Pool(features, thread_count=1)
    shares = [
        np.asarray(model.get_feature_importance(rows, type="ShapValues", thread_count=1), dtype=np.float64)
        for model in models
    ]
    return np.concatenate([each.reshape(len(features), -1, each.shape[-1]) for each in shares], axis=1)


def forecast_contributions(
    samples: WindowSamples, spec: ModelSpec, params: StrategyParams, answer: Answer, shares: Shares
) -> Contributions:
    """Return the shares of the features of a strategy in its forecast, or in the median of its quantiles.

    Parameters:
        answer: as the models answer; see `forecast`.
        shares: of the same models.

    Raises:
        CannotExplainError: if the strategy feeds its own forecasts back, which are inputs of nobody.
    """
    if params.strategy == "recursive":
        raise CannotExplainError(
            "with the strategy 'recursive' a step is made of earlier forecasts, in which shares do not add up; "
            "train with 'direct' or 'horizon_feature'"
        )
    rows = strategy_rows(samples, spec, params)
    found = shares(rows)
    targets, levels, width = len(spec.targets), max(1, len(spec.quantiles)), found.shape[-1]
    if params.strategy == "direct":
        found = found.reshape(len(samples), targets, spec.horizon, levels, width).transpose(0, 2, 1, 3, 4)
    else:
        found = found.reshape(len(samples), spec.horizon, targets, levels, width)
    chosen = found[..., 0, :]
    if spec.quantiles:
        # Sorted, the median may be the answer of another level.
        order = np.argsort(forecast(samples, spec, params, answer), axis=-1, kind="stable")
        median = order[..., spec.quantile_position(0.5), None, None]
        chosen = np.take_along_axis(found, median, axis=-2)[..., 0, :]
    # Shares are those of changes, in units of the window's scale.
    start = forecast_start(samples, params).astype(np.float64)
    chosen = chosen * window_scales(samples, spec, spec.targets).astype(np.float64)[:, None, :, None]
    return Contributions(strategy_features(spec, params), chosen[..., -1] + start, chosen[..., :-1])


def table_contributions(samples: TabularSamples, spec: ModelSpec, answers: Float32, shares: Shares) -> Contributions:
    """Return the shares of the columns in the answers for rows of a table, or in the median of their quantiles.

    Parameters:
        answers: of the model, of shape (samples, outputs).
    """
    features = tuple(Feature(name, "value") for name in samples.channels)
    found = shares(samples.values)
    if spec.task == "regression":
        chosen = found[:, 0]
        if spec.quantiles:
            median = np.argsort(answers, axis=1, kind="stable")[:, spec.quantile_position(0.5), None, None]
            chosen = np.take_along_axis(found, median, axis=1)[:, 0]
        return Contributions(features, chosen[:, -1], chosen[:, :-1])
    if spec.classes == 2 and found.shape[1] == 1:
        found = np.concatenate([-found, found], axis=1)
        return Contributions(features, found[..., -1], found[..., :-1], "log_odds")
    return Contributions(features, found[..., -1], found[..., :-1], "scores")
