"""Temporal Fusion Transformer: what it reads, how it weighs it, and what it reports about that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlplatform.config import load_experiment
from mlplatform.datamodule.samples import WindowSamples
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.models.base import FitOptions, create_model, load_model, save_model
from mlplatform.models.families.tft import TFT
from mlplatform.models.networks.modules.fusion_transformer import InterpretableAttention
from mlplatform.models.networks.modules.tft import TFTModule
from mlplatform.training.trainers import trainer_for

CHANNELS = ("target", "noise", "state", "plan", "holiday", "size", "kind")
TARGET, NOISE, STATE, PLAN, HOLIDAY, SIZE, KIND = range(7)
COUNTS = (0, 0, 3, 0, 2, 0, 2)
LOOKBACK, HORIZON, ENTITIES, ROWS = 8, 4, 4, 150
SPEC = ModelSpec(
    task="forecast",
    channels=CHANNELS,
    targets=(TARGET,),
    lookback=LOOKBACK,
    horizon=HORIZON,
    step_seconds=3600,
    known=(PLAN, HOLIDAY),
    static=(SIZE, KIND),
    cardinalities=COUNTS,
)


def fleet(seed: int = 0) -> WindowSamples:
    """Four machines: the target follows the plan, upwards for one kind of machine and downwards for the other."""
    noise = np.random.default_rng(seed)
    pieces = []
    for entity in range(ENTITIES):
        plan, kind = noise.normal(size=ROWS), entity % 2
        pieces.append(
            np.column_stack(
                [
                    (2 * kind - 1) * plan + noise.normal(0, 0.05, ROWS),
                    noise.normal(size=ROWS),
                    noise.integers(0, 3, ROWS),
                    plan,
                    noise.integers(0, 2, ROWS),
                    # One size per machine would tell the machines, and so their kinds, apart.
                    noise.normal(size=ROWS),
                    np.full(ROWS, kind),
                ]
            )
        )
    origins = [entity * ROWS + np.arange(LOOKBACK - 1, ROWS - HORIZON) for entity in range(ENTITIES)]
    hours = np.tile(np.arange(ROWS), ENTITIES)
    return WindowSamples(
        values=np.concatenate(pieces).astype(np.float32),
        timestamps=np.datetime64("2024-01-01", "ns") + hours * np.timedelta64(1, "h"),
        origins=np.concatenate(origins).astype(np.int64),
        channels=CHANNELS,
        targets=(TARGET,),
        lookback=LOOKBACK,
        horizon=HORIZON,
        known=SPEC.known,
        static=SPEC.static,
        step_seconds=3600,
    )


def fitted(spec: ModelSpec = SPEC, epochs: int = 1, **params: Any) -> TFT:
    model = create_model("tft", {"max_epochs": epochs, "hidden": 8, "learning_rate": 0.01, **params}, spec)
    samples = replace(fleet(), known=spec.known, static=spec.static)
    trainer_for(model).fit(model, samples, None, FitOptions())
    assert isinstance(model, TFT)
    return model


@pytest.fixture(scope="module")
def model() -> TFT:
    """Trained until it knows the problem."""
    return fitted(epochs=12, hidden=16, dropout=0.0, normalisation="none")


def changed(samples: WindowSamples, rows: slice, column: int, value: float) -> WindowSamples:
    values = samples.values.copy()
    values[rows, column] = value
    return replace(samples, values=values, cache={})


def one_window(origin: int = 40) -> WindowSamples:
    return replace(fleet(1), origins=np.array([origin]), cache={})


def network_of(model: TFT) -> TFTModule:
    assert isinstance(model.module, TFTModule)
    return model.module


def test_it_learns_a_problem_that_needs_static_and_known_inputs_together(model: TFT) -> None:
    samples = fleet(1)
    error = np.abs(model.predict(samples) - samples.outputs()).mean()
    assert error < 0.25 * np.abs(samples.outputs()).mean()


def test_the_informative_variables_get_the_highest_mean_weight(model: TFT) -> None:
    weights = model.interpret(fleet(1))
    assert max(weights.future, key=lambda name: weights.future[name]) == "plan"
    assert max(weights.static, key=lambda name: weights.static[name]) == "kind"


def test_every_kind_of_input_has_its_own_variables(model: TFT) -> None:
    weights = model.interpret(fleet(1))
    calendar = ["time of day", "time of week"]
    assert list(weights.static) == ["size", "kind"]
    assert list(weights.past) == ["target", "noise", "plan", *calendar, "state", "holiday"]
    assert list(weights.future) == ["plan", *calendar, "holiday"]
    for kind in (weights.static, weights.past, weights.future):
        assert sum(kind.values()) == pytest.approx(1, abs=1e-5)


def test_an_interpretation_is_the_mean_over_all_samples_and_not_of_one_batch(
    model: TFT, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = fleet(1)
    whole = model.interpret(samples)
    halves = [model.interpret(samples.select(part)) for part in np.array_split(np.arange(len(samples)), 2)]
    monkeypatch.setattr(TFT, "predict_batch", 37)
    batched = model.interpret(samples)
    for name, weight in whole.past.items():
        assert batched.past[name] == pytest.approx(weight, rel=1e-4)
        assert np.mean([half.past[name] for half in halves]) == pytest.approx(weight, rel=1e-4)
    np.testing.assert_allclose(batched.attention, whole.attention, rtol=1e-4, atol=1e-7)


def test_attention_is_causal_adds_up_to_one_and_is_reported_by_lag(model: TFT) -> None:
    attention = model.interpret(fleet(1)).attention
    assert attention.shape == (HORIZON, LOOKBACK + HORIZON)
    np.testing.assert_allclose(attention.sum(axis=1), 1, rtol=1e-5)
    for step in range(HORIZON):
        assert (attention[step, : LOOKBACK + step + 1] > 0).all()
        assert (attention[step, LOOKBACK + step + 1 :] == 0).all()
    lags = model.interpret(fleet(1)).lag_attention
    assert lags.shape == (LOOKBACK,)
    assert lags[0] == pytest.approx(attention[:, LOOKBACK - 1].mean(), rel=1e-5)
    assert lags[-1] == pytest.approx(attention[:, 0].mean(), rel=1e-5)


def test_heads_share_their_values_and_drop_steps_of_their_own() -> None:
    torch.manual_seed(0)
    attention, values = InterpretableAttention(8, 4, 0.5), torch.randn(1, 6, 8)
    dropped = []
    attention.dropout.register_forward_hook(lambda *call: dropped.append(call[2]))
    attention(values, 2)
    assert attention.value.out_features == 2
    assert dropped[0].shape == (1, 4, 2, 6)
    assert not torch.equal(dropped[0][:, 0] == 0, dropped[0][:, 1] == 0)


def test_selection_weights_add_up_to_one_in_every_step(model: TFT) -> None:
    tensors = model.tensors(fleet(1))
    with torch.inference_mode():
        fused = network_of(model).explain(tensors.batch(torch.arange(20)))
    for weights in (fused.static_weights, fused.past_weights, fused.future_weights):
        assert weights is not None
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))


def test_a_static_category_changes_the_forecast_and_an_unseen_one_has_its_own(model: TFT) -> None:
    samples = one_window()
    answers = [model.predict(changed(samples, slice(None), KIND, code)) for code in (0, 1, -1)]
    assert np.isfinite(answers).all()
    for one, two in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(answers[one] - answers[two]).max() > 0.01
    beyond = model.predict(changed(samples, slice(None), KIND, 7))
    np.testing.assert_array_equal(beyond, answers[2])


def test_a_static_column_is_read_at_the_origin_only(model: TFT) -> None:
    samples = one_window()
    before = changed(samples, slice(0, 40), SIZE, 9)
    assert np.array_equal(model.predict(before), model.predict(samples))
    assert not np.array_equal(model.predict(changed(samples, slice(40, 41), SIZE, 9)), model.predict(samples))


@pytest.mark.parametrize("column", range(7))
def test_after_the_origin_only_known_columns_are_read(model: TFT, column: int) -> None:
    samples = one_window()
    value = 1 - samples.values[41, column]
    after = changed(samples, slice(41, 41 + HORIZON), column, value)
    same = np.array_equal(model.predict(after), model.predict(samples))
    assert same == (column not in SPEC.known)


@pytest.mark.parametrize("column", [STATE, HOLIDAY])
def test_categories_of_the_past_are_rows_of_a_table_and_not_numbers(model: TFT, column: int) -> None:
    samples = one_window()
    answers = [model.predict(changed(samples, slice(33, 41), column, code)) for code in (-1, 0, 1)]
    assert not np.array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[1], answers[2])
    np.testing.assert_array_equal(model.predict(changed(samples, slice(33, 41), column, 99)), answers[0])


@pytest.mark.parametrize("normalisation", ["last_value", "last_value_scaled"])
def test_quantiles_do_not_cross_and_move_with_the_level_of_the_window(normalisation: str) -> None:
    spec = replace(SPEC, quantiles=(0.1, 0.25, 0.5, 0.75, 0.9))
    model = fitted(spec, normalisation=normalisation)
    samples = fleet(1)
    answers = model.predict_quantiles(samples)
    assert answers.shape == (len(samples), HORIZON, 1, 5)
    assert (np.diff(answers, axis=-1) > 0).all()
    shifted = replace(samples, values=samples.values + np.float32(np.arange(7) == TARGET) * 10, cache={})
    np.testing.assert_allclose(model.predict_quantiles(shifted), answers + 10, rtol=1e-4)


def test_scaled_windows_answer_in_their_own_scale() -> None:
    model = fitted(normalisation="last_value_scaled")
    samples = fleet(1)
    stretched = replace(
        samples, values=samples.values * np.where(np.arange(7) == TARGET, 100, 1).astype("f4"), cache={}
    )
    np.testing.assert_allclose(model.predict(stretched), model.predict(samples) * 100, rtol=0.02, atol=1)


def test_without_static_columns_there_are_no_contexts(tmp_path: Path) -> None:
    spec = replace(SPEC, static=(), known=())
    model = fitted(spec)
    samples = replace(fleet(1), static=(), known=())
    weights = model.interpret(samples)
    assert network_of(model).network.static_encoder is None
    assert weights.static == {}
    assert list(weights.future) == ["time of day", "time of week"]
    assert {"size", "kind"} < set(weights.past)
    save_model(model, "tft", tmp_path / "model")
    assert load_model(tmp_path / "model").predict(samples).tobytes() == model.predict(samples).tobytes()


def test_no_samples_cannot_be_interpreted(model: TFT) -> None:
    with pytest.raises(ValueError, match="at least one"):
        model.interpret(fleet().select(np.zeros(0, dtype=np.int64)))


@pytest.mark.parametrize("name", ["etth1_tft", "fleet_tft"])
def test_the_experiments_are_valid_and_fit_quantiles(name: str) -> None:
    config = load_experiment(name)
    assert config.model.family == "tft"
    assert config.uncertainty.quantiles == (0.1, 0.5, 0.9)
    TFT.Params.model_validate(config.model.params)
