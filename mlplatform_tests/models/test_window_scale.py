"""Windows that nothing scales: what follows them teaches nothing, whatever unit the data come in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mlplatform.datamodule.samples import WindowSamples
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.models.base import create_model
from mlplatform.models.window_scale import teaching
from mlplatform.plugins import MODELS
from mlplatform.training.trainers import trainer_for

LOOKBACK, HORIZON, SEASON, STEPS = 14, 3, 7, 300
SPEC = ModelSpec(
    task="forecast",
    channels=("sales",),
    targets=(0,),
    lookback=LOOKBACK,
    horizon=HORIZON,
    step_seconds=86_400,
    scaling="window",
    season=SEASON,
)


def shops(unit: float = 1.0) -> WindowSamples:
    """Return an open shop, then one that is closed until it sells a hundred thousand, and one that stays closed."""
    generator = np.random.default_rng(0)
    week = 10.0 + 3.0 * np.sin(2 * np.pi * np.arange(STEPS) / SEASON)
    opens = np.r_[np.zeros(2 * LOOKBACK), np.full(HORIZON, 1e5)]
    values = np.concatenate([week + generator.normal(0, 0.3, STEPS), opens, np.zeros(2 * LOOKBACK + HORIZON)])
    origins = np.r_[
        np.arange(LOOKBACK - 1, STEPS - HORIZON),
        STEPS + np.arange(LOOKBACK - 1, 2 * LOOKBACK),
        STEPS + len(opens) + np.arange(LOOKBACK - 1, 2 * LOOKBACK),
    ]
    return WindowSamples(
        values=(unit * values).astype(np.float32)[:, None],
        timestamps=np.datetime64("2024-01-01", "ns") + np.arange(len(values)) * np.timedelta64(1, "D"),
        origins=origins,
        channels=SPEC.channels,
        targets=SPEC.targets,
        lookback=LOOKBACK,
        horizon=HORIZON,
        step_seconds=SPEC.step_seconds,
    )


def test_what_follows_a_window_of_nothing_is_left_out_and_nothing_else() -> None:
    samples = shops()
    kept = teaching(samples, SPEC)
    opening = STEPS + 2 * LOOKBACK - 1 - np.arange(HORIZON)
    assert set(samples.origins) - set(kept.origins) == set(opening.tolist())
    assert teaching(samples, SPEC) is kept
    assert teaching(kept, SPEC) is kept
    assert teaching(samples, replace(SPEC, scaling="")) is samples
    nothing_else = samples.select(np.isin(samples.origins, opening))
    assert teaching(nothing_else, SPEC) is nothing_else


def test_windows_of_differences_are_nothing_where_the_levels_are() -> None:
    level = replace(shops(), values=shops().values + 5.0, cache={})
    assert len(teaching(level.differenced(SEASON), SPEC)) == len(level)
    # The windows of differences are the same stretch of time.
    kept = teaching(shops().differenced(SEASON), SPEC)
    assert len(kept) == len(teaching(shops(), SPEC))


@pytest.mark.parametrize("family", ["ridge", "xgboost", "catboost", "random_forest"])
@pytest.mark.parametrize("unit", [1.0, 1e-6])
def test_a_closed_shop_decides_nothing_about_an_open_one(family: str, unit: float) -> None:
    samples, is_open = shops(unit), slice(STEPS - HORIZON - LOOKBACK + 1)
    errors = []
    for learns in (samples, samples.select(np.arange(len(samples))[is_open])):
        model = create_model(family, MODELS.get(family).example_params(), SPEC)
        trainer_for(model).fit(model, learns, None)
        errors.append(np.abs(model.predict(samples) - samples.outputs())[is_open].mean())
    beside_closed_ones, alone = errors
    assert beside_closed_ones < 1.1 * alone
