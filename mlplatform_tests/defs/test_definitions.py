"""The code location: YAML in, one group with job, checks, sensor and schedule per experiment out."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dagster import (
    AssetKey,
    AssetsDefinition,
    DefaultScheduleStatus,
    DefaultSensorStatus,
    Definitions,
    build_schedule_context,
)

from mlplatform.config import ConfigError, load_experiment
from mlplatform.definitions import build_defs
from mlplatform.settings import AddressError, Settings
from mlplatform.testing.yard import EXPERIMENT, write_conf, write_experiment

SECOND = "yard_again"
DATASET_ASSETS = {"raw", "feature_table", "online_features", "splits"}
EXPERIMENT_ASSETS = {
    "cv_folds",
    "fold_preprocessor",
    "tuned_model",
    "registered_pair",
    "production_alias",
    "serving_reload",
    "prediction_log",
    "forecasts",
    "drift_report",
    "forecast_errors",
}
HEAVY = {"torch", "ray", "mlflow", "feast", "xgboost", "optuna", "pandera", "duckdb", "sklearn", "scipy", "dvc"}


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two experiments on the yard, beside those of the package."""
    folder = tmp_path_factory.mktemp("definitions")
    write_conf(folder / "conf")
    write_experiment(folder / "conf", SECOND, horizon=3)
    return {
        **os.environ,
        "MLPLATFORM_HOME": str(folder / "home"),
        "MLPLATFORM_CONF_DIR": str(folder / "conf"),
        "DAGSTER_HOME": "",
    }


@pytest.fixture(scope="module")
def defs(environ: dict[str, str]) -> Definitions:
    settings = Settings.from_env(environ)
    names = (EXPERIMENT, SECOND, "diabetes_xgboost")
    return build_defs(experiments=[load_experiment(name, settings=settings) for name in names])


def assets_of(defs: Definitions) -> dict[AssetKey, AssetsDefinition]:
    return {key: each for each in defs.resolve_asset_graph().assets_defs for key in each.keys}


def test_a_dagster_home_that_dagster_would_miss_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/state/a?b")
    with pytest.raises(AddressError, match="would keep its databases elsewhere"):
        build_defs(experiments=[])


def test_asset_keys_are_owner_and_asset_and_the_owner_is_the_group(defs: Definitions) -> None:
    expected = {AssetKey([owner, name]) for owner in ("yard", "diabetes") for name in DATASET_ASSETS}
    expected |= {
        AssetKey([owner, name]) for owner in (EXPERIMENT, SECOND, "diabetes_xgboost") for name in EXPERIMENT_ASSETS
    }
    # Of these three, only the table asks for nested cross-validation.
    expected.add(AssetKey(["diabetes_xgboost", "nested_cv"]))
    graph = defs.resolve_asset_graph()
    assert set(graph.materializable_asset_keys) == expected
    assert all(graph.get(key).group_name == key.path[0] for key in expected)


def test_edges_run_from_raw_data_to_the_reload_and_from_predictions_to_the_report(defs: Definitions) -> None:
    graph = defs.resolve_asset_graph()

    def parents(owner: str, name: str) -> set[str]:
        return {"/".join(key.path) for key in graph.get(AssetKey([owner, name])).parent_keys}

    assert parents("yard", "raw") == set()
    assert parents("yard", "feature_table") == {"yard/raw"}
    assert parents("yard", "online_features") == parents("yard", "splits") == {"yard/feature_table"}
    own = {
        "cv_folds": {"yard/splits"},
        "fold_preprocessor": {f"{EXPERIMENT}/cv_folds"},
        "tuned_model": {f"{EXPERIMENT}/cv_folds", f"{EXPERIMENT}/fold_preprocessor"},
        "registered_pair": {f"{EXPERIMENT}/tuned_model", "yard/online_features"},
        "production_alias": {f"{EXPERIMENT}/tuned_model", f"{EXPERIMENT}/registered_pair"},
        "serving_reload": {f"{EXPERIMENT}/production_alias"},
        "prediction_log": {f"{EXPERIMENT}/production_alias"},
        "forecasts": {f"{EXPERIMENT}/production_alias", "yard/online_features"},
        "forecast_errors": {f"{EXPERIMENT}/prediction_log", f"{EXPERIMENT}/forecasts", "yard/feature_table"},
        "drift_report": {f"{EXPERIMENT}/forecast_errors", "yard/feature_table"},
    }
    assert {name: parents(EXPERIMENT, name) for name in own} == own


def test_folds_are_partitions_that_one_run_can_cover(defs: Definitions) -> None:
    for name in ("cv_folds", "fold_preprocessor"):
        each = assets_of(defs)[AssetKey([EXPERIMENT, name])]
        assert each.partitions_def is not None
        assert each.partitions_def.get_partition_keys() == ["fold_0", "fold_1"]
        assert each.backfill_policy is not None
        assert each.backfill_policy.max_partitions_per_run is None
    tags = defs.resolve_job_def(f"train_{EXPERIMENT}").tags
    assert tags["dagster/asset_partition_range_start"] == "fold_0"
    assert tags["dagster/asset_partition_range_end"] == "fold_1"


def test_every_day_is_a_partition_of_the_report_and_one_run_can_cover_many(defs: Definitions) -> None:
    report = assets_of(defs)[AssetKey([EXPERIMENT, "drift_report"])]
    assert report.partitions_def is not None
    days = report.partitions_def.get_partition_keys(current_time=dt.datetime(2024, 1, 3, 4, 15, tzinfo=dt.UTC))
    assert days == ["2024-01-01", "2024-01-02", "2024-01-03"]
    assert report.backfill_policy is not None
    assert report.backfill_policy.max_partitions_per_run is None
    schedule = defs.get_repository_def().get_schedule_def(f"monitor_{EXPERIMENT}_daily")
    moment = dt.datetime(2024, 1, 3, 4, 15, tzinfo=dt.UTC)
    (request,) = schedule.evaluate_tick(build_schedule_context(scheduled_execution_time=moment)).run_requests or []
    assert request.tags["dagster/partition"] == "2024-01-03"


def test_checks_that_the_alias_waits_for_block(defs: Definitions) -> None:
    graph = defs.resolve_asset_graph()
    blocking = {
        (key.asset_key.path[1], key.name): graph.get(key).blocking
        for key in graph.asset_check_keys
        if key.asset_key.path[0] == EXPERIMENT
    }
    assert blocking == {
        # It stops nothing, but the alias waits for a person's word.
        ("cv_folds", "too_good"): False,
        ("fold_preprocessor", "leakage"): True,
        ("registered_pair", "serving_parity"): True,
        ("registered_pair", "pair_integrity"): True,
        ("registered_pair", "beats_baseline"): False,
        # It stops nothing, but the alias waits for what it keeps with the pair.
        ("registered_pair", "promotion_gate"): True,
    }


def test_every_experiment_has_its_jobs_and_every_dataset_its_own(defs: Definitions) -> None:
    repository = defs.get_repository_def()
    names = {name for name in repository.job_names if not name.startswith("__")}
    expected = {
        f"{kind}_{name}"
        for name in (EXPERIMENT, SECOND, "diabetes_xgboost")
        for kind in ("train", "monitor", "forecast")
    }
    expected |= {"promote", "rollback", "repair", "reproduce"}
    expected |= {
        name
        for dataset in ("yard", "diabetes")
        for name in (f"ingest_{dataset}", f"materialize_{dataset}", f"materialize_{dataset}_full")
    }
    expected.add("nested_cv_diabetes_xgboost")
    assert names == expected
    train = defs.resolve_job_def(f"train_{EXPERIMENT}")
    # The page of a job with partitions asks for one of them.
    assert train.partitions_def is None
    selected = {"/".join(key.path) for key in train.asset_layer.executable_asset_keys}
    assert selected == {f"yard/{name}" for name in DATASET_ASSETS} | {
        f"{EXPERIMENT}/{name}"
        for name in EXPERIMENT_ASSETS - {"prediction_log", "forecast_errors", "drift_report", "forecasts"}
    }
    assert {key.name for key in train.asset_layer.asset_graph.asset_check_keys} == {
        "too_good",
        "leakage",
        "serving_parity",
        "pair_integrity",
        "beats_baseline",
        "promotion_gate",
    }


def test_the_steps_of_every_job_share_one_process(defs: Definitions) -> None:
    jobs = defs.get_repository_def().get_all_jobs()
    assert {job.executor_def.name for job in jobs} == {"in_process"}
    assert len(jobs) > 6


TELLERS = {"alerts", "run_failures"}


def test_sensors_and_schedules_are_there_and_off_until_asked_for(defs: Definitions) -> None:
    repository = defs.get_repository_def()
    assert {sensor.name for sensor in repository.sensor_defs} == {
        *(f"drift_{name}" for name in (EXPERIMENT, SECOND, "diabetes_xgboost")),
        *(f"new_data_{name}" for name in ("yard", "diabetes")),
        *TELLERS,
    }
    assert {schedule.name for schedule in repository.schedule_defs} == {
        *(
            f"{kind}_{name}_daily"
            for kind in ("monitor", "forecast")
            for name in (EXPERIMENT, SECOND, "diabetes_xgboost")
        ),
        *(f"materialize_{name}_hourly" for name in ("yard", "diabetes")),
    }
    # What only tells people is on: without a channel to tell it does nothing.
    running = {each.name for each in repository.sensor_defs if each.default_status == DefaultSensorStatus.RUNNING}
    assert running == TELLERS
    assert all(schedule.default_status == DefaultScheduleStatus.STOPPED for schedule in repository.schedule_defs)
    sensor = repository.get_sensor_def(f"drift_{EXPERIMENT}")
    assert [target.job_name for target in sensor.targets] == [f"train_{EXPERIMENT}"]


def test_all_experiments_of_both_configuration_folders_are_found(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLPLATFORM_HOME", "MLPLATFORM_CONF_DIR"):
        monkeypatch.setenv(name, environ[name])
    graph = build_defs().resolve_asset_graph()
    groups = {graph.get(key).group_name for key in graph.materializable_asset_keys}
    assert {EXPERIMENT, SECOND, "yard", "fleet", "fleet_xgboost", "etth1_nlinear"} <= groups


def test_a_configuration_folder_that_is_not_there_stops_the_code_location(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLPLATFORM_CONF_DIR", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="absent does not exist; check MLPLATFORM_CONF_DIR"):
        build_defs()


@pytest.mark.integration
def test_dagster_validates_the_code_location(environ: dict[str, str]) -> None:
    dagster = Path(sys.executable).with_name("dagster")
    answer = subprocess.run(
        [dagster, "definitions", "validate", "-m", "mlplatform.definitions"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert "Validation successful" in answer.stdout + answer.stderr


@pytest.mark.integration
def test_importing_the_code_location_imports_nothing_heavy(environ: dict[str, str]) -> None:
    code = "import mlplatform.definitions, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    answer = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert not HEAVY & set(answer.stdout.split())
