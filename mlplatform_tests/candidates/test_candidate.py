"""A training run as a whole: the names of its metrics, the same bits twice, and storage."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mlplatform.candidates.candidate import Candidate, CandidateReport, ModelReport, train_candidate
from mlplatform.candidates.plots import draw_forecast, forecast_plot, scores_plot
from mlplatform.config import ExperimentConfig, load_experiment
from mlplatform.data.raw import ingest
from mlplatform.data.raw_table import read_raw
from mlplatform.datamodule.base import DataModule
from mlplatform.datamodule.factory import create_data_module
from mlplatform.datamodule.splits import read_part, write_split
from mlplatform.figures import new_figure
from mlplatform.models import Bounds
from mlplatform.plugins import METRICS
from mlplatform.settings import Settings
from mlplatform.testing.experiments import prepare_folds, pump_config, pump_frame, pump_settings
from mlplatform.training.evaluation import score_part

PNG = b"\x89PNG\r\n"


@dataclass(frozen=True)
class Run:
    """A training run and the parts it was scored on."""

    candidate: Candidate
    parts: dict[str, DataModule]

    def predictions(self, part: str = "reference") -> np.ndarray:
        module, manager = self.parts[part], self.candidate.manager
        samples = module.samples(manager, manager.transform(module.panel), module.rows)
        return module.invert(manager, self.candidate.model.predict(samples))


def train(config: ExperimentConfig, settings: Settings, journal: Path) -> Run:
    """Split the stored rows, prepare the folds and train, as the assets do."""
    history = read_raw(config.dataset, settings)
    manifest = write_split(config.dataset, config.split, history, settings)
    parts = {
        part: create_data_module(config, read_part(settings, config.dataset.name, config.split.version_id, part))
        for part in manifest.parts
    }
    module = parts.pop("train")
    return Run(train_candidate(config, module, prepare_folds(module), parts, journal), parts)


@pytest.fixture(scope="module")
def pump(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = pump_settings(tmp_path_factory.mktemp("pump"))
    ingest(pump_config(settings).dataset, settings)
    return settings


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path_factory.mktemp("bundled"))})
    for name in ("breast_cancer_xgboost", "diabetes_xgboost"):
        ingest(load_experiment(name, settings=settings).dataset, settings)
    return settings


@pytest.fixture(scope="module")
def forecast(pump: Settings, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(pump_config(pump, "tuning.trials=2"), pump, tmp_path_factory.mktemp("studies") / "journal")


def small(name: str, settings: Settings) -> ExperimentConfig:
    overrides = [
        "tuning.trials=2",
        "split.folds=3",
        "model.params.num_boost_round=30",
        "model.params.learning_rate=0.3",
    ]
    return load_experiment(name, overrides, settings)


@pytest.fixture(scope="module")
def regression(bundled: Settings, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(small("diabetes_xgboost", bundled), bundled, tmp_path_factory.mktemp("studies") / "journal")


@pytest.fixture(scope="module")
def classification(bundled: Settings, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(small("breast_cancer_xgboost", bundled), bundled, tmp_path_factory.mktemp("studies") / "journal")


def test_a_forecast_reports_every_score_under_its_agreed_name(forecast: Run) -> None:
    expected = {"fit_seconds"}
    for prefix in ("", "baseline_repeat_last_", "baseline_seasonal_naive_", "baseline_ridge_"):
        for metric in ("mae", "rmse"):
            expected |= {f"{prefix}fold_{k}_{metric}" for k in range(2)}
            expected |= {f"{prefix}cv_{metric}_mean", f"{prefix}cv_{metric}_std"}
            for part in ("reference", "test_late"):
                names = (metric, "coverage", "interval_score", "interval_width", "pinball")
                expected |= {f"{prefix}{part}_{name}{space}" for name in names for space in ("", "_scaled")}
    metrics = forecast.candidate.report.metrics()
    assert set(metrics) == expected
    assert all(np.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize(
    ("fixture", "names"),
    [("regression", ("mae", "rmse", "r2")), ("classification", ("log_loss", "accuracy", "roc_auc", "f1"))],
)
def test_a_table_reports_every_score_under_its_agreed_name(
    fixture: str, names: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    run: Run = request.getfixturevalue(fixture)
    expected = {"fit_seconds"}
    for prefix in ("", "baseline_dummy_", "baseline_linear_"):
        for metric in names:
            expected |= {f"{prefix}fold_{k}_{metric}" for k in range(3)}
            expected |= {f"{prefix}cv_{metric}_mean", f"{prefix}cv_{metric}_std", f"{prefix}reference_{metric}"}
        if fixture == "regression":
            of_intervals = ("coverage", "interval_score", "interval_width", "pinball")
            expected |= {f"{prefix}reference_{name}" for name in of_intervals}
    metrics = run.candidate.report.metrics()
    assert set(metrics) == expected
    deciding = METRICS.get(names[0])
    assert deciding.loss(metrics[f"cv_{names[0]}_mean"]) < deciding.loss(metrics[f"baseline_dummy_cv_{names[0]}_mean"])


def test_means_and_deviations_are_those_of_the_folds() -> None:
    report = ModelReport(({"mae": 1.0}, {"mae": 3.0}), {"reference": {"mae": 5.0, "mae_scaled": 0.5}})
    assert report.metrics() == {
        "fold_0_mae": 1.0,
        "fold_1_mae": 3.0,
        "cv_mae_mean": 2.0,
        "cv_mae_std": 1.0,
        "reference_mae": 5.0,
        "reference_mae_scaled": 0.5,
    }


def test_a_forecast_is_scored_in_original_units_and_in_scaled_space(forecast: Run) -> None:
    module, scores = forecast.parts["reference"], forecast.candidate.report.candidate.parts["reference"]
    truth = module.truth(forecast.candidate.manager, module.rows)
    error = float(np.mean(np.abs(truth - forecast.predictions()), dtype=np.float64))
    assert scores["mae"] == pytest.approx(error, rel=1e-6)
    scale = next(each for name, kind, each in forecast.candidate.manager.fitted_ if (name, kind) == ("heat", "scale"))
    assert scores["mae_scaled"] == pytest.approx(error / scale.state()["width"], rel=1e-4)


def test_the_candidate_learns_what_there_is_to_learn(forecast: Run) -> None:
    metrics = forecast.candidate.report.metrics()
    assert metrics["baseline_ridge_cv_mae_mean"] < 0.8 * metrics["baseline_repeat_last_cv_mae_mean"]
    assert metrics["cv_mae_mean"] < metrics["baseline_repeat_last_cv_mae_mean"]


@pytest.mark.parametrize("model", ["pump_v1", "pump_nlinear_v1"])
def test_the_same_configuration_and_seed_give_the_same_scores_and_bits(
    model: str, pump: Settings, tmp_path: Path
) -> None:
    config = pump_config(pump, "tuning.trials=3", f"model={model}")
    first, second = (train(config, pump, tmp_path / f"{k}.journal") for k in range(2))
    assert first.candidate.report.candidate == second.candidate.report.candidate
    assert first.candidate.report.baselines == second.candidate.report.baselines
    assert first.candidate.report.params == second.candidate.report.params
    assert first.predictions().tobytes() == second.predictions().tobytes()
    losses = [[trial["loss"] for trial in run.candidate.report.trials] for run in (first, second)]
    assert losses[0] == losses[1]


def test_a_table_gives_the_same_scores_and_bits_twice(classification: Run, bundled: Settings, tmp_path: Path) -> None:
    again = train(small("breast_cancer_xgboost", bundled), bundled, tmp_path / "journal")
    assert again.candidate.report.candidate == classification.candidate.report.candidate
    assert again.predictions().tobytes() == classification.predictions().tobytes()


def test_the_refit_runs_for_the_median_of_the_folds(forecast: Run) -> None:
    report = forecast.candidate.report
    assert len(report.iterations) == 3  # one booster per step of the horizon
    boosters = forecast.candidate.model.boosters_  # type: ignore[attr-defined]
    assert tuple(booster.num_boosted_rounds() for booster in boosters) == report.iterations
    assert all(1 <= rounds <= 5 for rounds in report.iterations)


@pytest.mark.parametrize("fixture", ["forecast", "regression", "classification"])
def test_a_stored_candidate_comes_back_as_it_was(fixture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    run: Run = request.getfixturevalue(fixture)
    run.candidate.save(tmp_path)
    loaded = Candidate.load(tmp_path)
    assert loaded.config == run.candidate.config
    assert loaded.report == run.candidate.report
    assert loaded.run_id == ""
    assert Run(loaded, run.parts).predictions().tobytes() == run.predictions().tobytes()
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".json", ".ubj", ".npy", ".safetensors"}
    json.loads((tmp_path / "report.json").read_text())


def test_a_part_without_a_single_sample_is_refused(forecast: Run) -> None:
    empty = create_data_module(forecast.candidate.config, pump_frame(hours=5, units=[1]))
    with pytest.raises(ValueError, match=r"no sample of 'pump_xgboost' fits .* lookback 12, horizon 3, 5 rows"):
        score_part(empty, forecast.candidate.manager, forecast.candidate.model)


@pytest.mark.parametrize("fixture", ["forecast", "regression", "classification"])
def test_a_run_is_drawn(fixture: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(fixture)
    assert scores_plot(run.candidate).startswith(PNG)
    assert forecast_plot(run.candidate, run.parts["reference"]).startswith(PNG)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_picture_of_a_forecast_names_whose_it_is_and_shows_intervals_and_truth(forecast: Run, steps: int) -> None:
    module = forecast.parts["reference"]
    origin = int(module.rows[len(module.rows) // 2])
    axes = new_figure(7.0, 3.2).add_subplot()
    truth = np.full(steps, 20.0)
    bands = [Bounds(truth - 5, truth + 5, 0.8), Bounds(truth - 2, truth + 2, 0.5)]
    draw_forecast(axes, module, origin, "heat", truth, truth + 1, bands)
    unit, time = module.panel.row_entities[origin], str(module.panel.timestamps[origin])[:16]
    assert axes.get_title() == f"pump_xgboost: unit {unit}, reference set, from {time}"
    handles, labels = axes.get_legend_handles_labels()
    season = module.config.season
    naive = "last value" if season == 1 else "last season"
    assert sorted(labels) == sorted(["50% interval", "80% interval", "forecast", "history", "truth", naive])
    drawn = dict(zip(labels, handles, strict=True))
    before = module.panel.columns["heat"][: origin + 1][-season:]
    assert drawn[naive].get_ydata().tolist() == np.resize(before, steps).tolist()
    assert drawn["80% interval"].get_paths()
    assert drawn["50% interval"].get_paths()
    assert drawn["truth"].get_ydata().tolist() == truth.tolist()
    # A line through one point is invisible.
    assert steps > 1 or drawn["truth"].get_marker() == "o"


def test_the_picture_of_a_single_series_invents_no_entity(forecast: Run) -> None:
    module = forecast.parts["reference"]
    alone = copy.copy(module)
    alone.config = module.config.model_copy(
        update={"dataset": module.config.dataset.model_copy(update={"entity_column": None})}
    )
    axes = new_figure(7.0, 3.2).add_subplot()
    draw_forecast(axes, alone, int(module.rows[0]), "heat", np.full(3, 20.0), np.full(3, 21.0))
    assert axes.get_title() == f"pump_xgboost: reference set, from {str(module.panel.timestamps[module.rows[0]])[:16]}"


def test_every_baseline_is_named_with_its_outcome() -> None:
    def scores(folds: float, reference: float) -> ModelReport:
        return ModelReport(({"mae": folds},), {"reference": {"mae": reference}})

    baselines = {"repeat_last": scores(3, 2), "ridge": scores(2, 0.5), "flat": scores(0.5, math.nan)}
    report = CandidateReport({}, (), scores(1, 1), baselines, (), 0.0)
    assert report.beside_baselines("mae") == [
        "beats the baseline repeat_last: cv_mae_mean 1 against 3, reference_mae 1 against 2",
        "beats the baseline ridge: cv_mae_mean 1 against 2; loses to the baseline ridge: reference_mae 1 against 0.5",
        "loses to the baseline flat: cv_mae_mean 1 against 0.5, reference_mae 1 against nan",
    ]
    assert report.losses("mae")[0] == "loses to the baseline ridge: reference_mae 1 against 0.5"
