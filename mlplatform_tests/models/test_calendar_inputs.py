"""What families read of the calendar: in the place that it should have, on days to come, and to some avail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlplatform.calendars import HolidayDays, make_calendar, ns_of
from mlplatform.datamodule import ModelSpec, WindowSamples
from mlplatform.models import FitOptions, Model, create_model, load_model, save_model
from mlplatform.models.forecasting import strategy_features, strategy_rows
from mlplatform.models.networks import WindowTensors
from mlplatform.training.trainers import trainer_for

LOOKBACK, HORIZON = 14, 7
TIME = "weekday holidays=DE::1:0"
TREES = {"target_lags": [1, 6, 7, 13], "target_means": [7], "covariate_lags": [], "covariate_means": []}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "xgboost": ("xgboost", {**TREES, "num_boost_round": 60}),
    "by_step": ("xgboost", {**TREES, "num_boost_round": 60, "strategy": "horizon_feature"}),
    "recursive": ("xgboost", {**TREES, "num_boost_round": 60, "strategy": "recursive"}),
    "random_forest": ("random_forest", {**TREES, "n_estimators": 20, "strategy": "horizon_feature"}),
    "ridge": ("ridge", {}),
    "lstm": ("lstm", {"max_epochs": 5, "batch_size": 32, "hidden": 8, "learning_rate": 0.02}),
    "tft": ("tft", {"max_epochs": 3, "batch_size": 32, "hidden": 8, "learning_rate": 0.02}),
}
CALENDAR = make_calendar("D", "Europe/Berlin")


def spec_of(time_text: str, calendar_text: str = CALENDAR.text) -> ModelSpec:
    return ModelSpec(
        "forecast", ("sold",), (0,), LOOKBACK, HORIZON, step_seconds=86_400, season=7, calendar_text=calendar_text,
        time_text=time_text,
    )  # fmt: skip


def shops(begin: str, days: int, seed: int) -> tuple[WindowSamples, np.ndarray]:
    """Return windows of a shop that closes on holidays and sells much on the days before; and where holidays are."""
    times = CALENDAR.ahead(np.array([np.datetime64(begin, "ns")]), np.arange(days))
    local = CALENDAR.local(times).astype("datetime64[D]").astype(np.int64)
    germany, week = HolidayDays("DE"), 10 + np.array([0, 0, 1, 1, 2, 3, -3])[(local + 3) % 7]
    free, eve = germany.count(local, local + 1), germany.count(local + 1, local + 2)
    sold = week - 6 * free + 3 * eve + np.random.default_rng(seed).normal(0, 0.3, days)
    samples = WindowSamples(
        values=(sold / 3).astype(np.float32)[:, None],
        timestamps=times,
        origins=np.arange(LOOKBACK - 1, days - HORIZON, dtype=np.int64),
        channels=("sold",),
        targets=(0,),
        lookback=LOOKBACK,
        horizon=HORIZON,
        step_seconds=86_400,
        calendar_text=CALENDAR.text,
    )
    windows = np.lib.stride_tricks.sliding_window_view(free + eve > 0, HORIZON)
    return samples, windows[samples.origins + 1]


def trained(name: str, spec: ModelSpec, train: WindowSamples) -> Model:
    family, params = FAMILIES[name]
    model = create_model(family, params, spec)
    trainer_for(model).fit(model, train, None, FitOptions(workers=1))
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_days_that_no_season_foretells_are_forecast_from_the_calendar(name: str, tmp_path: Path) -> None:
    (train, _), (test, is_special) = shops("2018-12-31T23:00", 1500, 0), shops("2023-12-31T23:00", 500, 1)
    truth = test.outputs()[..., 0]
    errors = {}
    for text in ("", TIME):
        model = trained(name, spec_of(text), train)
        errors[text] = np.abs(model.predict(test)[..., 0] - truth)[is_special].mean()
    assert errors[TIME] < 0.7 * errors[""]
    save_model(model, FAMILIES[name][0], tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.spec.time_text == TIME
    some = test.select(np.array([3, 200]))
    np.testing.assert_array_equal(loaded.predict(some), model.predict(some))


@pytest.mark.parametrize("difference", [None, 7])
@pytest.mark.parametrize("scaling", ["", "window"])
def test_a_linear_map_is_of_what_the_calendar_leaves(scaling: str, difference: int | None) -> None:
    (train, _), (test, is_special) = shops("2018-12-31T23:00", 1500, 0), shops("2023-12-31T23:00", 500, 1)
    errors = {}
    for text in ("", TIME):
        model: Any = create_model("ridge", {"difference": difference}, replace(spec_of(text), scaling=scaling))
        trainer_for(model).fit(model, train, None, FitOptions())
        errors[text] = np.abs(model.predict(test) - test.outputs())[..., 0]
    # Noise alone is left, of two days where differences are learned, and on days whose window has a holiday as well.
    noise = 0.15 if difference else 0.12
    assert errors[TIME][is_special].mean() < noise < 1 < errors[""][is_special].mean()
    assert errors[TIME][~is_special].mean() < noise < errors[""][~is_special].mean()
    # What recurs with the season has no effect of its own.
    ridge = model.inner if difference else model
    np.testing.assert_allclose(ridge.effects_[:2], 0, atol=1e-6)


def test_a_linear_map_reads_windows_with_gaps_beside_the_calendar() -> None:
    samples, _ = shops("2021-12-31T23:00", 400, 0)
    model = trained("ridge", replace(spec_of(TIME), scaling="window"), samples)
    gaps = samples.values.copy()
    gaps[samples.origins[50]] = np.nan
    gappy = replace(samples, values=gaps, cache={}).select(np.array([50]))
    whole = samples.select(np.array([50]))
    assert np.isfinite(model.predict(gappy)).all()
    assert 0 < np.abs(model.predict(gappy) - model.predict(whole)).max() < 0.6


@pytest.mark.parametrize("frequency", ["D", "8h"])
def test_a_model_of_all_steps_is_told_of_the_events_of_every_day_to_come(frequency: str) -> None:
    samples, _ = shops("2023-11-30T23:00", 60, 0)
    calendar = make_calendar(frequency, "Europe/Berlin")
    text = calendar.text
    seconds = calendar.nominal_ns // 10**9
    samples = replace(
        samples,
        timestamps=calendar.ahead(samples.timestamps[:1], np.arange(60)),
        step_seconds=seconds,
        calendar_text=text,
    )
    spec = replace(spec_of(TIME, text), step_seconds=seconds)
    params: Any = create_model("xgboost", TREES, spec).params
    names, rows = strategy_features(spec, params), strategy_rows(samples, spec, params)
    assert len(names) == rows.shape[1]
    columns = [each.part for each in names if each.kind == "calendar" and each.step is None]
    assert columns == ["weekday", "holiday DE", "1 day before holiday DE"]
    germany = HolidayDays("DE")
    days = calendar.local(samples.origin_times).astype("datetime64[D]").astype(np.int64)
    ahead = calendar.ahead(samples.origin_times[:, None], np.arange(1, HORIZON + 1))
    days_ahead = calendar.local(ahead).astype("datetime64[D]").astype(np.int64)
    told = {day_ahead: set() for day_ahead in range(len(samples))}
    for feature, values in zip(names, rows.T, strict=True):
        if feature.kind != "calendar":
            continue
        of = days if feature.step is None else days_ahead[:, feature.step - 1]
        expected = {
            "weekday": (of + 3) % 7,
            "holiday DE": germany.count(of, of + 1),
            "1 day before holiday DE": germany.count(of + 1, of + 2),
        }
        np.testing.assert_array_equal(values, expected[feature.part or ""])
        if feature.step is not None:
            for place, day in enumerate(of.tolist()):
                told[place].add(day)
    assert all(told[place] == set(own.tolist()) for place, own in enumerate(days_ahead))


@pytest.mark.parametrize("name", ["xgboost", "by_step", "recursive", "ridge"])
def test_a_window_alone_is_answered_with_the_bits_that_it_has_among_others(name: str) -> None:
    train, _ = shops("2019-12-31T23:00", 500, 0)
    model = trained(name, spec_of("weekday month business_day fourier=365.25:2 holidays=DE:BY:2:1"), train)
    together = model.predict(train)
    for place in range(0, len(train), 37):
        origin = train.origins[place]
        rows = slice(origin - LOOKBACK + 1, origin + 1)
        # As it comes online: its own rows and none after them.
        alone = replace(
            train,
            values=train.values[rows],
            timestamps=train.timestamps[rows],
            origins=np.array([LOOKBACK - 1]),
            cache={},
        )
        assert model.predict(alone).tobytes() == together[place : place + 1].tobytes()


def test_batches_of_a_network_carry_the_calendar_of_their_steps() -> None:
    samples, _ = shops("2024-02-29T23:00", 60, 0)
    spec = spec_of("weekday fourier=365.25:1 holidays=DE::1:0")
    features = spec.time_features
    assert features is not None
    batch = WindowTensors(samples, True, spec=spec).batch(np_tensor([4, 20]))
    alone = WindowTensors(samples.select(np.array([20])), True, spec=spec).batch(np_tensor([0]))
    for row, place in enumerate((4, 20)):
        origin = samples.origins[place]
        past = samples.timestamps[origin - LOOKBACK + 1 : origin + 1]
        ahead = CALENDAR.ahead(samples.timestamps[origin], np.arange(1, HORIZON + 1))
        assert batch.past_calendar[row].numpy().tobytes() == features.waves(ns_of(past)).tobytes()
        assert batch.future_calendar[row].numpy().tobytes() == features.waves(ns_of(ahead)).tobytes()
    assert alone.past_calendar[0].numpy().tobytes() == batch.past_calendar[1].numpy().tobytes()
    assert alone.future_calendar[0].numpy().tobytes() == batch.future_calendar[1].numpy().tobytes()


def np_tensor(places: list[int]) -> Any:
    import torch

    return torch.tensor(places)


def test_a_fusion_transformer_weighs_parts_and_events_by_name() -> None:
    train, _ = shops("2019-12-31T23:00", 300, 0)
    model: Any = create_model("tft", {"max_epochs": 1, "hidden": 8}, spec_of(TIME))
    trainer_for(model).fit(model, train, None, FitOptions(workers=1))
    weights = model.interpret(train.select(np.arange(5)))
    assert set(weights.future) == {"weekday", "holiday DE", "1 day before holiday DE"}
    assert set(weights.past) == {"sold", *weights.future}
