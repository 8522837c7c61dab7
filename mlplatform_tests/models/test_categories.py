"""Categorical columns of networks: vectors instead of codes, in every role that a column can have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mlplatform.datamodule.samples import WindowSamples
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.models.base import FitOptions, Model, create_model, load_model, save_model
from mlplatform.models.networks.model import TorchModel
from mlplatform.models.networks.modules.categories import MixedColumns
from mlplatform.training.trainers import trainer_for

CODE, PULSE = 1, 2
ENTITIES, ROWS, LOOKBACK, HORIZON = 6, 200, 4, 2
NOISE = 0.1
# Up and down with every code: no line, and no curve with few bends, goes through them.
EFFECTS = np.array([-3.0, 3.0, -3.0, 3.0, -3.0, 3.0])
ROLES: dict[str, dict[str, tuple[int, ...]]] = {
    "past": {"known": (PULSE,)},
    "known": {"known": (CODE, PULSE)},
    "static": {"known": (PULSE,), "static": (CODE,)},
}


def pulses(role: str, seed: int) -> WindowSamples:
    """A target that is the effect of a category at a pulse and nothing otherwise; a past category acts two steps on."""
    noise = np.random.default_rng(seed)
    pieces = []
    for entity in range(ENTITIES):
        pulse = noise.random(ROWS) < 0.3
        codes = np.full(ROWS, entity) if role == "static" else noise.integers(0, len(EFFECTS), ROWS)
        effect = EFFECTS[np.roll(codes, HORIZON) if role == "past" else codes]
        pieces.append(np.column_stack([effect * pulse + noise.normal(0, NOISE, ROWS), codes, pulse]))
    hours = np.tile(np.arange(ROWS), ENTITIES)
    return WindowSamples(
        values=np.concatenate(pieces).astype(np.float32),
        timestamps=np.datetime64("2024-01-01", "ns") + hours * np.timedelta64(1, "h"),
        origins=np.concatenate([entity * ROWS + np.arange(5, ROWS - HORIZON) for entity in range(ENTITIES)]),
        channels=("flow", "code", "pulse"),
        targets=(0,),
        lookback=LOOKBACK,
        horizon=HORIZON,
        step_seconds=3600,
        known=ROLES[role].get("known", ()),
        static=ROLES[role].get("static", ()),
    )


def fitted(role: str, cardinalities: tuple[int, ...]) -> TorchModel:
    spec = ModelSpec(
        "forecast",
        ("flow", "code", "pulse"),
        (0,),
        LOOKBACK,
        HORIZON,
        step_seconds=3600,
        cardinalities=cardinalities,
        **ROLES[role],
    )
    params = {"hidden": 16, "dropout": 0, "max_epochs": 20, "batch_size": 32, "learning_rate": 0.01}
    model = create_model("lstm", params, spec)
    assert isinstance(model, TorchModel)
    trainer_for(model).fit(model, pulses(role, 0), None, FitOptions())
    return model


def error(model: Model, samples: WindowSamples) -> float:
    return float(np.square(model.predict(samples) - samples.outputs()).mean())


@pytest.fixture(scope="module", params=ROLES)
def role(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(role: str) -> TorchModel:
    return fitted(role, (0, len(EFFECTS), 0))


def test_a_category_is_learned_where_its_code_as_a_number_is_not(role: str, model: TorchModel) -> None:
    samples = pulses(role, 1)
    # The noise alone has an error of 0.01.
    assert error(model, samples) < 0.1
    assert error(fitted(role, ()), samples) > 0.3


def test_an_unseen_category_is_neutral(role: str, model: TorchModel) -> None:
    samples = replace(pulses(role, 2), cache={})

    def answers(code: int) -> np.ndarray:
        values = samples.values.copy()
        values[:, CODE] = code
        return model.predict(replace(samples, values=values, cache={}))

    missing, beyond, first = answers(-1), answers(len(EFFECTS)), answers(0)
    assert np.isfinite(missing).all()
    np.testing.assert_array_equal(missing, beyond)
    assert np.abs(missing - first).max() > 0.5
    tables = {name: value for name, value in model.module.state_dict().items() if name.endswith("table")}
    assert set(tables) == {"past_columns.table"} | ({"ahead_columns.table"} if role != "past" else set())
    for table in tables.values():
        # Training saw no unseen category, so its row is what it was in the beginning.
        assert table.shape == (1 + len(EFFECTS), 8)
        assert not table[0].any()


def test_vectors_of_categories_are_stored(model: TorchModel, role: str, tmp_path: Path) -> None:
    save_model(model, "lstm", tmp_path / "model")
    samples = pulses(role, 3)
    assert load_model(tmp_path / "model").predict(samples).tobytes() == model.predict(samples).tobytes()


def test_codes_are_read_before_they_are_normalised() -> None:
    spec = ModelSpec(
        "forecast", ("flow", "code", "pulse"), (0,), LOOKBACK, HORIZON, cardinalities=(0, 6, 0), known=(PULSE,)
    )
    model = create_model("lstm", {"normalisation": "revin"}, spec)
    assert isinstance(model, TorchModel)
    torch.manual_seed(0)
    model.module = model.build()
    samples = pulses("past", 4)
    before = model.predict(samples)
    for place, is_read in ((CODE, False), (PULSE, True)):
        with torch.no_grad():
            model.module.get_parameter("gain")[place] = 3
            model.module.get_parameter("shift")[place] = 2
        assert np.array_equal(model.predict(samples), before) != is_read


def test_columns_without_categories_pass_and_cost_nothing() -> None:
    before = torch.get_rng_state()
    columns = MixedColumns([0, 0], 8)
    values = torch.randn(3, 5, 2)
    assert columns.size == 2
    assert not columns.state_dict()
    torch.set_rng_state(before)
    MixedColumns([0, 0], 8)
    assert torch.equal(torch.get_rng_state(), before)
    assert columns(values, values) is values


def test_numbers_come_first_and_every_category_has_rows_of_its_own() -> None:
    columns = MixedColumns([2, 0, 3], 4)
    assert columns.size == 1 + 2 * 4
    codes = torch.tensor([[-1.0, 7, -1], [0, 7, 0], [1, 7, 1], [2, 7, 2], [9, 7, 9]])[:, None]
    found = columns(codes + 100, codes)
    assert found.shape == (5, 1, 9)
    assert (found[..., 0] == 107).all()
    first, second = found[:, 0, 1:5], found[:, 0, 5:]
    assert not first[[0, 3, 4]].any()
    assert not second[[0, 4]].any()
    assert len(torch.unique(torch.cat([first[1:3], second[1:4]]), dim=0)) == 5
