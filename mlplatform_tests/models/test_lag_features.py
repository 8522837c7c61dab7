"""Lag features: what they hold, beside plain loops, and what they never read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlplatform.datamodule.samples import WindowSamples
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.models.base import create_model, load_model, save_model
from mlplatform.models.families.xgboost import XGBoostForecast
from mlplatform.models.forecasting import lag_features
from mlplatform.models.forecasting.lag_features import LagFeatureParams, last_observed, origin_features, step_features
from mlplatform.models.sample_cache import KEPT, keep_latest
from mlplatform.testing.model_samples import fitted, spec_for

LOOKBACK, HORIZON, STEP_SECONDS = 8, 3, 3600
CHANNELS = ("target", "planned", "holiday", "site", "other")
TARGET, PLANNED, HOLIDAY, SITE, OTHER = range(5)
PARAMS = LagFeatureParams(target_lags=(1, 4), target_means=(3,), covariate_lags=(2,), covariate_means=())


def rich_spec(horizon: int = HORIZON, **changes: object) -> ModelSpec:
    """A target, a known number, a known category, a static category and a measured column."""
    spec = ModelSpec("forecast", CHANNELS, (TARGET,), LOOKBACK, horizon, step_seconds=STEP_SECONDS)
    return replace(spec, known=(PLANNED, HOLIDAY), static=(SITE,), cardinalities=(0, 0, 2, 3, 0), **changes)


def rich_samples(seed: int = 0, rows: int = 60) -> WindowSamples:
    noise = np.random.default_rng(seed)
    values = noise.normal(size=(rows, 5)).astype(np.float32)
    values[:, TARGET] = np.cumsum(values[:, TARGET] * 0.1) + values[:, PLANNED]
    values[:, HOLIDAY] = noise.integers(-1, 2, rows)
    values[:, SITE] = np.where(np.arange(rows) < rows // 2, 0, 2)
    spec = rich_spec()
    return WindowSamples(
        values=values,
        timestamps=np.datetime64("2024-01-03T05:00", "ns") + np.arange(rows) * np.timedelta64(1, "h"),
        origins=np.arange(LOOKBACK - 1, rows - HORIZON, dtype=np.int64),
        channels=spec.channels,
        targets=spec.targets,
        lookback=LOOKBACK,
        horizon=HORIZON,
        known=spec.known,
        static=spec.static,
        step_seconds=STEP_SECONDS,
    )


def calendar(time: np.datetime64) -> list[float]:
    seconds = int(time.astype("datetime64[s]").astype(np.int64))
    angles = [2 * np.pi * (seconds % period) / period for period in (86_400, 604_800)]
    return [*np.sin(angles), *np.cos(angles)]


def test_known_static_and_categorical_columns_equal_plain_loops() -> None:
    samples, spec = rich_samples(), rich_spec()
    matrix = origin_features(samples, spec, PARAMS, with_known=True)
    for row, origin in zip(matrix, samples.origins, strict=True):
        target, planned, holiday, site, other = samples.values.T
        last = target[origin]
        expected = [last, target[origin - 1] - last, target[origin - 4] - last]
        expected += [target[origin - 2 : origin + 1].mean() - last]
        expected += [planned[origin], planned[origin - 2] - planned[origin]]
        expected += [holiday[origin], site[origin]]
        expected += [other[origin], other[origin - 2] - other[origin]]
        expected += calendar(samples.timestamps[origin])
        for step in range(1, HORIZON + 1):
            expected += [planned[origin + step] - planned[origin], holiday[origin + step]]
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_a_step_is_described_by_its_number_its_known_columns_and_its_calendar() -> None:
    samples, spec = rich_samples(), rich_spec()
    matrix = step_features(samples, spec, PARAMS, 2)
    for row, origin in zip(matrix, samples.origins, strict=True):
        planned, holiday = samples.values[:, PLANNED], samples.values[:, HOLIDAY]
        expected = [2, planned[origin + 2] - planned[origin], holiday[origin + 2]]
        expected += calendar(samples.timestamps[origin + 2])
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_other_columns_and_levels_can_be_left_out() -> None:
    samples, spec = rich_samples(), rich_spec()
    full = origin_features(samples, spec, PARAMS, with_known=False)
    without_others = origin_features(samples, spec, PARAMS.model_copy(update={"covariate_history": False}), False)
    assert without_others.tobytes() == np.delete(full, [8, 9], axis=1).tobytes()
    without_levels = origin_features(samples, spec, PARAMS.model_copy(update={"levels": False}), False)
    # Categories stay: a code has no level.
    assert without_levels.tobytes() == np.delete(full, [0, 4, 8], axis=1).tobytes()


@pytest.mark.parametrize("with_known", [False, True])
def test_a_window_has_the_same_bits_alone_in_a_batch_and_across_blocks(
    with_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, spec = rich_samples(), rich_spec()
    params = PARAMS.model_copy(update={"target_means": (3, 7, 8), "covariate_means": (5,)})
    together = origin_features(samples, spec, params, with_known)
    for position in range(len(samples)):
        alone = origin_features(samples.select(np.array([position])), spec, params, with_known)
        assert alone[0].tobytes() == together[position].tobytes()
    monkeypatch.setattr(lag_features, "BLOCK", 5)
    assert origin_features(replace(samples, cache={}), spec, params, with_known).tobytes() == together.tobytes()


def test_nothing_behind_the_origin_is_read_but_known_columns() -> None:
    samples, spec = rich_samples(), rich_spec()
    origin = 30
    one = replace(samples, origins=np.array([origin]), cache={})
    values = samples.values.copy()
    values[: origin - LOOKBACK + 1] = 1e6
    values[np.ix_(range(origin + 1, len(values)), [TARGET, SITE, OTHER])] = -1e6
    # Serving has no timestamps behind the origin.
    blind = replace(one, values=values, timestamps=samples.timestamps[: origin + 1], cache={})
    for step in range(1, HORIZON + 1):
        assert step_features(blind, spec, PARAMS, step).tobytes() == step_features(one, spec, PARAMS, step).tobytes()
    for with_known in (False, True):
        seen = origin_features(blind, spec, PARAMS, with_known)
        assert seen.tobytes() == origin_features(one, spec, PARAMS, with_known).tobytes()
    values[origin + 1, PLANNED] += 1
    changed = origin_features(replace(blind, cache={}), spec, PARAMS, with_known=True)
    assert changed.tobytes() != origin_features(one, spec, PARAMS, with_known=True).tobytes()


def test_missing_values_stay_missing_and_touch_no_other_feature() -> None:
    samples, spec = rich_samples(), rich_spec()
    origin = 30
    one = replace(samples, origins=np.array([origin]), cache={})
    values = samples.values.copy()
    values[origin - 4, TARGET] = np.nan
    holed = origin_features(replace(one, values=values, cache={}), spec, PARAMS, with_known=True)
    assert np.flatnonzero(np.isnan(holed[0])).tolist() == [2]
    full = origin_features(one, spec, PARAMS, with_known=True)
    assert np.delete(holed, 2).tobytes() == np.delete(full, 2).tobytes()


def test_forecasts_start_from_the_last_observed_value() -> None:
    samples = rich_samples()
    values = samples.values.copy()
    values[29:31, TARGET] = np.nan
    values[40 : 41 + LOOKBACK, TARGET] = np.nan
    holed = replace(samples, values=values, origins=np.array([28, 30, 31, 40 + LOOKBACK]), cache={})
    assert last_observed(holed)[:, 0].tolist() == [values[28, TARGET], values[28, TARGET], values[31, TARGET], 0]


def test_the_latest_of_a_kind_are_kept() -> None:
    cache: dict[object, object] = {"other": 1}
    made = []
    for setting in ("a", "b", "a", "c", "a", "b"):
        keep_latest(cache, "kind", setting, lambda setting=setting: made.append(setting))
    assert made == ["a", "b", "c", "b"]
    assert list(cache) == ["other", ("kind", "a"), ("kind", "b")]


def test_trials_of_many_settings_do_not_pile_up() -> None:
    samples, held_out = rich_samples(), rich_samples(1)
    for lags in ((1,), (2,), (3,)):
        for strategy in ("direct", "horizon_feature"):
            for bins in (8, 16, 32):
                params = {"target_lags": lags, "strategy": strategy, "max_bin": bins, "num_boost_round": 1}
                model = create_model("xgboost", params, rich_spec())
                assert isinstance(model, XGBoostForecast)
                model.fit(samples, held_out)
    for cache in (samples.cache, held_out.cache):
        kinds = [key[0] for key in cache]
        assert max(kinds.count(kind) for kind in kinds) == KEPT


def test_lags_and_means_that_are_not_given_follow_from_the_season() -> None:
    # A season of 24, such as that of hourly data, has those that stood here before there were others.
    assert LagFeatureParams().for_season(24).model_dump() == LagFeatureParams().model_dump()
    quarters = LagFeatureParams(covariate_lags=(2,)).for_season(4)
    assert quarters.target_lags == (1, 2, 3, 4, 7, 8, 12, 16, 24, 27, 28)
    assert quarters.target_means == (4, 28)
    assert (quarters.covariate_lags, quarters.covariate_means) == ((2,), (4,))
    plain = LagFeatureParams().for_season(1)
    assert plain.target_lags == (1, 2, 3, 4, 6, 7)
    assert plain.target_means == (7,)
    many = LagFeatureParams().for_season(24, dense=True)
    assert set(range(1, 25)) | {47, 48, 167, 168} <= set(many.target_lags)
    assert len(LagFeatureParams().for_season(96, dense=True).target_lags) <= len(many.target_lags) + 5
    assert LagFeatureParams().for_season(1, dense=True).target_lags == (1, 2, 3, 4, 5, 6, 7)
    half_hours = LagFeatureParams().for_season(48)
    assert {47, 48, 95, 96, 335, 336} <= set(half_hours.target_lags)


def test_a_stored_model_keeps_the_lags_that_it_was_fitted_with(tmp_path: Path) -> None:
    spec = replace(spec_for("forecast"), season=3)
    model, _ = fitted("xgboost", spec)
    assert model.params.covariate_lags == (1, 3)
    save_model(model, "xgboost", tmp_path / "model")
    assert load_model(tmp_path / "model").params == model.params
