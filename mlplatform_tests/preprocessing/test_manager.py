"""The TransformManager: which steps touch which columns, and the same result in training and serving."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlplatform.config import ExperimentConfig, StepConfig
from mlplatform.config.preprocessing import PreprocessingConfig
from mlplatform.datamodule.panel import Panel
from mlplatform.preprocessing.manager import TransformManager
from mlplatform.testing.experiments import pump_config, pump_frame, pump_settings, write_yaml

COLUMNS = ("flow", "heat", "state")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    return pump_config(pump_settings(tmp_path_factory.mktemp("pump")))


@pytest.fixture
def panel() -> Panel:
    return Panel.from_frame(pump_frame(), COLUMNS)


def with_steps(folder: Path, *steps: dict[str, Any]) -> ExperimentConfig:
    settings = pump_settings(folder)
    write_yaml(folder / "conf", "preprocessing/pump", {"steps": list(steps)})
    return pump_config(settings)


def test_a_step_without_columns_takes_every_feature_of_its_type(config: ExperimentConfig) -> None:
    manager = TransformManager.for_experiment(config)
    assert [(step.transform, step.columns) for step in manager.steps] == [
        ("label_encoding", ("state",)),
        ("impute", ("flow", "heat")),
        ("scale", ("flow", "heat")),
    ]
    assert manager.context == 2


def test_an_encoding_step_of_ones_own_is_not_doubled(tmp_path: Path) -> None:
    steps = ({"transform": "scale", "columns": ["heat"]}, {"transform": "label_encoding"})
    manager = TransformManager.for_experiment(with_steps(tmp_path, *steps))
    assert [(step.transform, step.columns) for step in manager.steps] == [
        ("scale", ("heat",)),
        ("label_encoding", ("state",)),
    ]


def test_codes_can_be_scaled_after_encoding(tmp_path: Path, panel: Panel) -> None:
    steps = ({"transform": "label_encoding"}, {"transform": "scale", "columns": ["state"]})
    manager = TransformManager.for_experiment(with_steps(tmp_path, *steps)).fit(panel)
    codes = manager.transform(panel).columns["state"].astype(np.float64)
    assert abs(float(np.mean(codes))) < 1e-5


def test_columns_that_the_experiment_does_not_use_are_left_out(tmp_path: Path) -> None:
    config = with_steps(tmp_path, {"transform": "scale", "columns": ["flow", "heat"]})
    fewer = config.model_copy(update={"features": config.features.model_copy(update={"columns": ("heat",)})})
    manager = TransformManager.for_experiment(fewer)
    assert [(step.transform, step.columns) for step in manager.steps] == [("scale", ("heat",))]


def test_every_step_is_fitted_on_the_output_of_the_one_before(config: ExperimentConfig, panel: Panel) -> None:
    manager = TransformManager.for_experiment(config).fit(panel)
    transformed = manager.transform(panel)
    for name in ("flow", "heat"):
        values = transformed.columns[name].astype(np.float64)
        assert np.isfinite(values).all()
        assert values.mean() == pytest.approx(0, abs=1e-5)
        assert values.std() == pytest.approx(1, abs=1e-5)
    assert set(transformed.columns["state"].tolist()) == {0.0, 1.0}
    assert transformed.timestamps is panel.timestamps
    assert panel.columns["state"].dtype == object  # the input is as it was


def test_fitting_again_forgets_the_first_fit(config: ExperimentConfig, panel: Panel) -> None:
    manager = TransformManager.for_experiment(config).fit(panel)
    half = np.arange(panel.rows) < panel.rows // 2
    again = manager.fit(panel.take(half))
    fresh = TransformManager.for_experiment(config).fit(panel.take(half))
    assert [entry[2].state() for entry in again.fitted_] == [entry[2].state() for entry in fresh.fitted_]


def test_targets_come_back_in_original_units(config: ExperimentConfig, panel: Panel) -> None:
    manager = TransformManager.for_experiment(config).fit(panel)
    transformed = manager.transform(panel).columns["heat"].astype(np.float32)
    observed = np.isfinite(panel.columns["heat"].astype(np.float32))
    back = manager.invert(transformed, "heat")
    np.testing.assert_allclose(back[observed], panel.matrix(["heat"])[observed, 0], rtol=1e-5)
    grid = np.zeros((2, 3), dtype=np.float32)
    assert manager.invert(grid, "heat").shape == (2, 3)
    assert manager.invert(grid, "somewhere else") is grid


def test_steps_are_inverted_in_reverse(tmp_path: Path, panel: Panel) -> None:
    steps = ({"transform": "log", "columns": ["flow"]}, {"transform": "scale", "columns": ["flow"]})
    manager = TransformManager.for_experiment(with_steps(tmp_path, *steps)).fit(panel)
    transformed = manager.transform(panel).columns["flow"].astype(np.float32)
    np.testing.assert_allclose(manager.invert(transformed, "flow"), panel.matrix(["flow"])[:, 0], rtol=1e-4)


def test_a_category_that_training_never_saw_is_minus_one(config: ExperimentConfig, panel: Panel) -> None:
    manager = TransformManager.for_experiment(config).fit(panel)
    strange = panel.with_columns({**panel.columns, "state": np.full(panel.rows, "stuck", dtype=object)})
    assert set(manager.transform(strange).columns["state"].tolist()) == {-1.0}
    assert manager.classes("state") == ("open", "shut")
    with pytest.raises(ValueError, match="column 'flow' is not label-encoded"):
        manager.classes("flow")


def test_a_panel_without_the_target_is_transformed_all_the_same(config: ExperimentConfig, panel: Panel) -> None:
    manager = TransformManager.for_experiment(config).fit(panel)
    serving = panel.with_columns({name: panel.columns[name] for name in ("flow", "state")})
    transformed = manager.transform(serving)
    assert list(transformed.columns) == ["flow", "state"]
    assert transformed.columns["flow"].tobytes() == manager.transform(panel).columns["flow"].tobytes()


def test_a_window_with_its_context_gives_the_bits_of_the_whole_history(config: ExperimentConfig, panel: Panel) -> None:
    manager = TransformManager.for_experiment(config).fit(panel)
    everything = manager.transform(panel)
    for end in (43, 44, 92, 150):  # behind and inside the holes of unit 1
        steps = config.lookback + manager.context
        window = np.zeros(panel.rows, dtype=bool)
        window[end - steps : end] = True
        online = manager.transform(panel.take(window))
        for name in COLUMNS:
            expected = everything.columns[name][end - config.lookback : end]
            assert online.columns[name][-config.lookback :].tobytes() == expected.tobytes()


def test_what_was_saved_gives_the_same_bits(config: ExperimentConfig, panel: Panel, tmp_path: Path) -> None:
    manager = TransformManager.for_experiment(config).fit(panel)
    manager.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["preprocessor.json"]
    json.loads((tmp_path / "preprocessor.json").read_text())
    loaded = TransformManager.load(tmp_path)
    assert (loaded.steps, loaded.columns, loaded.context) == (manager.steps, manager.columns, manager.context)
    for name in COLUMNS:
        assert loaded.transform(panel).columns[name].tobytes() == manager.transform(panel).columns[name].tobytes()
    grid = np.linspace(-2, 2, 5, dtype=np.float32)
    assert loaded.invert(grid, "heat").tobytes() == manager.invert(grid, "heat").tobytes()


def test_a_step_on_the_wrong_type_is_refused_by_name(panel: Panel) -> None:
    steps = [StepConfig(transform="scale", columns=("state",))]
    manager = TransformManager(steps, {"state": "category"})
    with pytest.raises(ValueError, match="step 'scale' applies to float columns, but 'state' is category"):
        manager.fit(panel)


def test_an_empty_training_column_is_refused_by_name(config: ExperimentConfig, panel: Panel) -> None:
    broken = panel.with_columns({**panel.columns, "flow": np.full(panel.rows, np.nan, dtype=np.float32)})
    with pytest.raises(ValueError, match="column 'flow' has no observed value in the training rows"):
        TransformManager.for_experiment(config).fit(broken)


def test_series_of_their_own_levels_come_as_they_are(config: ExperimentConfig, panel: Panel, tmp_path: Path) -> None:
    steps = [
        *(dict(step) for step in config.model_dump()["preprocessing"]["steps"]),
        {"transform": "clip", "params": {}},
    ]
    scaled = config.model_copy(
        update={"preprocessing": PreprocessingConfig.model_validate({"scaling": "auto", "steps": steps})}
    )
    manager = TransformManager.for_experiment(scaled).fit(panel)
    assert manager.windowed == ("flow", "heat")
    transformed = manager.transform(panel)
    for name in manager.windowed:
        raw, found = panel.columns[name], transformed.columns[name]
        seen = np.isfinite(raw)
        np.testing.assert_array_equal(found[seen], raw[seen])
        assert manager.invert(found, name) is found
    # Gaps are bridged for two steps, and stay open behind that: there is no constant for series of every level.
    assert np.flatnonzero(np.isnan(transformed.columns["heat"])).tolist() == [42]
    manager.save(tmp_path)
    loaded = TransformManager.load(tmp_path)
    assert loaded.windowed == manager.windowed
    assert loaded.transform(panel).columns["heat"].tobytes() == transformed.columns["heat"].tobytes()


def test_one_series_is_scaled_as_before(config: ExperimentConfig, panel: Panel) -> None:
    scaled = config.model_copy(update={"preprocessing": config.preprocessing.model_copy(update={"scaling": "auto"})})
    one = panel.take(np.arange(panel.rows) < panel.offsets[1])
    manager, before = (TransformManager.for_experiment(each).fit(one) for each in (scaled, config))
    assert manager.windowed == ()
    assert manager.transform(one).columns["heat"].tobytes() == before.transform(one).columns["heat"].tobytes()
