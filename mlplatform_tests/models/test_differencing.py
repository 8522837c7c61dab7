"""Models of differences: the anchors, their inverse, intervals, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlplatform.models import Calibration, FitOptions, create_model, load_model, save_model
from mlplatform.testing.model_samples import HORIZON, LOOKBACK, spec_for, windows
from mlplatform.training import trainer_for

SEASON = 4
SPEC = replace(spec_for("forecast"), scaling="window", season=SEASON)


def test_outputs_are_differences_from_values_known_at_the_origin() -> None:
    samples = replace(windows(), horizon=6, origins=windows().origins[:-3])
    inner = samples.differenced(SEASON)
    origin, column = int(samples.origins[3]), samples.values[:, 1]
    # Two steps beyond a season are compared with the same values as the first two.
    known = [column[origin + step] for step in (-3, -2, -1, 0, -3, -2)]
    np.testing.assert_array_equal(inner.anchors()[3, :, 0], known)
    np.testing.assert_array_equal(inner.outputs()[3, :, 0], column[origin + 1 : origin + 7] - known)
    assert inner.lookback == LOOKBACK - SEASON
    np.testing.assert_array_equal(
        inner.inputs()[3, :, 1], column[origin - 7 : origin + 1] - column[origin - 11 : origin - 3]
    )
    # Columns that are not targets stay as they are.
    np.testing.assert_array_equal(inner.inputs()[3, :, 0], samples.values[origin - 7 : origin + 1, 0])


def test_a_missing_anchor_is_the_value_of_the_season_before_then_the_last_observed() -> None:
    samples = windows()
    origin = int(samples.origins[20])
    values = samples.values.copy()
    values[origin - 3, 1] = np.nan  # of the first step
    values[origin - 2 - np.arange(0, LOOKBACK, SEASON), 1] = np.nan  # of the second, in every season
    one = replace(samples, values=values, origins=np.array([origin]), cache={}).differenced(SEASON)
    expected = [samples.values[origin - 3 - SEASON, 1], samples.values[origin, 1], samples.values[origin - 1, 1]]
    np.testing.assert_array_equal(one.anchors()[0, :, 0], expected)


def test_repeating_the_last_seasonal_difference_is_the_season_before_with_its_drift() -> None:
    model = create_model("repeat_last", {"difference": "season"}, SPEC)
    samples = windows()
    forecast = model.predict(samples)
    column, origins = samples.values[:, 1], samples.origins
    for step in range(1, HORIZON + 1):
        drift = column[origins] - column[origins - SEASON]
        np.testing.assert_allclose(
            forecast[:, step - 1, 0], column[origins + step - SEASON] + drift, rtol=1e-5, atol=1e-6
        )


def test_what_repeats_every_season_is_forecast_exactly_by_trees_that_never_saw_its_level() -> None:
    samples = windows()
    season = np.array([0, 5, -3, 8], dtype=np.float32)
    values = samples.values.copy()
    values[:, 1] = np.tile(season, len(values))[: len(values)]
    train = replace(samples, values=values, cache={})
    model = create_model("xgboost", {"num_boost_round": 5, "difference": "season"}, SPEC)
    trainer_for(model).fit(model, train, None, FitOptions())
    later = replace(train, values=values + np.float32(1000), cache={})
    np.testing.assert_allclose(model.predict(later), later.outputs(), atol=1e-3)


@pytest.mark.parametrize("strategy", ["direct", "horizon_feature", "recursive"])
def test_a_line_is_continued_in_every_strategy(strategy: str) -> None:
    """First differences of a line are constant, which a tree can learn; the line itself leaves what it has seen."""
    samples = windows()
    values = samples.values.copy()
    values[:, 1] = np.arange(len(values), dtype=np.float32) * 2
    train = replace(samples, values=values, cache={})
    params = {"strategy": strategy, "difference": 1, "num_boost_round": 60, "learning_rate": 0.5, "reg_lambda": 0.0}
    model = create_model("xgboost", params, replace(SPEC, scaling=""))
    trainer_for(model).fit(model, train, None, FitOptions())
    later = replace(train, values=values + np.float32(500), cache={})
    np.testing.assert_allclose(model.predict(later), later.outputs(), atol=0.05)


def test_bounds_are_shifted_by_the_anchors_and_calibrated_like_those_of_any_model(tmp_path: Path) -> None:
    spec = replace(SPEC, quantiles=(0.1, 0.5, 0.9))
    model = create_model("xgboost", {"num_boost_round": 10, "difference": "season"}, spec)
    train = windows()
    trainer_for(model).fit(model, train, None, FitOptions())
    held_out = windows(1)
    bounds = model.predict_bounds(held_out, 0.8)
    inner = held_out.differenced(SEASON)
    own = model.inner.predict_quantiles(inner)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(
        bounds.upper - bounds.lower, (own[..., 2] + inner.anchors()) - (own[..., 0] + inner.anchors())
    )
    model.calibration = Calibration.chosen([(held_out, bounds)], 0.8, season=SEASON)
    save_model(model, "xgboost", tmp_path / "model")
    fresh = windows(2)
    made, again = model.predict_intervals(fresh), load_model(tmp_path / "model").predict_intervals(fresh)
    assert [each.tobytes() for each in made[:3]] == [each.tobytes() for each in again[:3]]
    covered = (made.lower <= fresh.outputs()) & (fresh.outputs() <= made.upper)
    assert 0.7 < covered.mean() < 0.95


def test_shares_and_base_add_up_to_the_answer() -> None:
    model = create_model("xgboost", {"num_boost_round": 5, "difference": "season"}, replace(SPEC, scaling=""))
    trainer_for(model).fit(model, windows(), None, FitOptions())
    samples = windows(2)
    found = model.explain(samples)
    np.testing.assert_allclose(found.base + found.values.sum(axis=-1), model.predict(samples), atol=1e-4)  # type: ignore[union-attr]


def test_a_difference_that_leaves_no_window_or_names_no_season_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves 0 of 12 steps of lookback"):
        create_model("ridge", {"difference": LOOKBACK}, SPEC)
    with pytest.raises(ValueError, match="needs to know the season"):
        create_model("ridge", {"difference": "season"}, replace(SPEC, season=0))


def test_stored_parameters_say_nothing_of_a_difference_that_there_is_not() -> None:
    assert "difference" not in create_model("ridge", {}, SPEC).params.model_dump()
    assert create_model("ridge", {"difference": 1}, SPEC).params.model_dump()["difference"] == 1
