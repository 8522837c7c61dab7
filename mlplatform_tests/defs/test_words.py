"""What YAML says in Dagster's own words: owners, tags, columns, freshness, crons, intervals and code versions."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dagster import (
    AssetKey,
    DefaultScheduleStatus,
    DefaultSensorStatus,
    Definitions,
    TableColumn,
    TableSchema,
)

from mlplatform.config import (
    ColumnConfig,
    DatasetAutomation,
    DatasetConfig,
    ExperimentAutomation,
    ExperimentConfig,
    StalenessConfig,
    load_experiment,
)
from mlplatform.definitions import build_defs
from mlplatform.settings import Settings
from mlplatform.testing.yard import EXPERIMENT, write_conf

if TYPE_CHECKING:
    from dagster._core.definitions.assets.graph.asset_graph import AssetNode

ROOT = Path(__file__).parents[2]
# Those that the page of Dagster 1.13.27 has pictures for.
PICTURED = {"table", "parquet", "duckdb", "dataset", "json", "optuna", "mlflow", "task", "report"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    """The yard's experiment as its YAML has it, which says none of it."""
    folder = tmp_path_factory.mktemp("words")
    write_conf(folder / "conf")
    settings = Settings.from_env({"MLPLATFORM_HOME": str(folder), "MLPLATFORM_CONF_DIR": str(folder / "conf")})
    return load_experiment(EXPERIMENT, settings=settings)


def changed(experiment: ExperimentConfig, **values: Any) -> ExperimentConfig:
    """Return the experiment with other values; keys that begin with `dataset_` are the dataset's."""
    of_dataset = {key.removeprefix("dataset_"): value for key, value in values.items() if key.startswith("dataset_")}
    own = {key: value for key, value in values.items() if not key.startswith("dataset_")}
    dataset = DatasetConfig.model_validate(experiment.dataset.model_dump() | of_dataset)
    return experiment.model_copy(update={**own, "dataset": dataset})


@pytest.fixture(scope="module")
def said(plain: ExperimentConfig) -> ExperimentConfig:
    """The experiment with everything said."""
    columns = plain.dataset.columns | {
        "load_pu": ColumnConfig(min=0, max=5, unit="pu", description="Load.", nullable=False)
    }
    return changed(
        plain,
        owners=("team:forecasting", "me@example.com"),
        tags={"tier": "gold"},
        staleness=StalenessConfig(max_age="6h"),
        automation=ExperimentAutomation(
            monitor_cron="0 6 * * mon", forecast_cron="0 7 * * *", drift_interval_s=300, running=("drift", "monitor")
        ),
        dataset_owners=("team:yard",),
        dataset_tags={"site": "north"},
        dataset_columns=columns,
        dataset_automation=DatasetAutomation(materialize_cron="@daily", new_data_interval_s=45, running=("new_data",)),
    )


@pytest.fixture(scope="module")
def defs(said: ExperimentConfig) -> Definitions:
    return build_defs(experiments=[said])


def node(defs: Definitions, owner: str, asset: str) -> AssetNode:
    return defs.resolve_asset_graph().get(AssetKey([owner, asset]))


def nodes(experiment: ExperimentConfig) -> dict[str, AssetNode]:
    graph = build_defs(experiments=[experiment]).resolve_asset_graph()
    return {key.path[-1]: graph.get(key) for key in graph.materializable_asset_keys}


def columns_of(asset: AssetNode) -> dict[str, TableColumn]:
    schema = asset.metadata["dagster/column_schema"]
    assert isinstance(schema, TableSchema)
    return {column.name: column for column in schema.columns}


def test_owners_and_tags_are_on_every_asset_of_the_group(defs: Definitions) -> None:
    graph = defs.resolve_asset_graph()
    owners = {"yard": ["team:yard"], EXPERIMENT: ["team:forecasting", "me@example.com"]}
    tags = {"yard": ("site", "north"), EXPERIMENT: ("tier", "gold")}
    for key in graph.materializable_asset_keys:
        group = key.path[0]
        assert graph.get(key).owners == owners[group]
        assert tags[group] in graph.get(key).tags.items()


def test_every_asset_has_pictured_kinds_and_a_description(plain: ExperimentConfig) -> None:
    assert not plain.description
    assert not plain.dataset.description
    found = nodes(plain)
    assert found["raw"].description == "Validated rows of yard, read from simulation://fleet."
    assert found["tuned_model"].description == "Forecast of top_oil_c of yard, 6 steps ahead, by xgboost."
    for name, asset in found.items():
        assert asset.description, name
        assert 1 <= len(asset.kinds) <= 3, name
        assert asset.kinds <= PICTURED, name


def test_columns_have_types_units_limits_and_descriptions(defs: Definitions) -> None:
    raw = columns_of(node(defs, "yard", "raw"))
    assert list(raw) == [
        "entity_id",
        "event_timestamp",
        "load_pu",
        "ambient_c",
        "top_oil_c",
        "hot_spot_c",
        "cooling",
    ]
    load = raw["load_pu"]
    assert (load.type, load.description) == ("float", "Load.")
    assert not load.constraints.nullable
    assert load.constraints.other == ["unit pu", ">= 0.0", "<= 5.0"]
    assert (raw["cooling"].type, raw["cooling"].constraints.nullable) == ("string", False)
    # Steps without a measurement are rows of the table.
    assert columns_of(node(defs, "yard", "feature_table"))["load_pu"].constraints.nullable
    splits = columns_of(node(defs, "yard", "splits"))
    assert set(splits) - set(raw) == {"is_context"}


@pytest.mark.parametrize(("max_age", "seconds"), [("6h", 21600), ("10s", 60)])
def test_features_are_overdue_after_the_age_that_the_strictest_experiment_allows(
    plain: ExperimentConfig, max_age: str, seconds: int
) -> None:
    strict = changed(plain, staleness=StalenessConfig(max_age=max_age))
    patient = changed(plain, name="patient", staleness=StalenessConfig(max_age="9D"))
    defs = build_defs(experiments=[patient, strict])
    for asset in ("raw", "online_features"):
        policy = node(defs, "yard", asset).freshness_policy
        assert policy is not None
        assert policy.fail_window.to_timedelta() == dt.timedelta(seconds=seconds)  # type: ignore[attr-defined]


def test_features_of_any_age_are_never_overdue(plain: ExperimentConfig) -> None:
    assert all(asset.freshness_policy is None for asset in nodes(plain).values())


def test_crons_and_intervals_are_those_of_the_configuration(defs: Definitions, plain: ExperimentConfig) -> None:
    for definitions, crons, intervals in (
        (defs, ("0 6 * * mon", "0 7 * * *", "@daily"), (300, 45)),
        (build_defs(experiments=[plain]), ("15 4 * * *", "30 5 * * *", "5 * * * *"), (60, 60)),
    ):
        repository = definitions.get_repository_def()
        schedules = (f"monitor_{EXPERIMENT}_daily", f"forecast_{EXPERIMENT}_daily", "materialize_yard_hourly")
        sensors = (f"drift_{EXPERIMENT}", "new_data_yard")
        assert tuple(repository.get_schedule_def(name).cron_schedule for name in schedules) == crons
        assert tuple(repository.get_sensor_def(name).minimum_interval_seconds for name in sensors) == intervals


def test_what_runs_from_the_start_is_what_the_configuration_names(defs: Definitions, plain: ExperimentConfig) -> None:
    names = (f"monitor_{EXPERIMENT}_daily", f"forecast_{EXPERIMENT}_daily", "materialize_yard_hourly")
    for definitions, schedules, sensors in (
        (defs, [True, False, False], [True, True]),
        (build_defs(experiments=[plain]), [False] * 3, [False] * 2),
    ):
        repository = definitions.get_repository_def()
        on = [repository.get_schedule_def(name).default_status == DefaultScheduleStatus.RUNNING for name in names]
        assert on == schedules
        looks = (f"drift_{EXPERIMENT}", "new_data_yard")
        assert [repository.get_sensor_def(name).default_status == DefaultSensorStatus.RUNNING for name in looks] == (
            sensors
        )


# One changed value of every key, and the assets whose code versions change with it.
TRAINING = {"cv_folds", "fold_preprocessor", "tuned_model"}
FEATURES = {"feature_table", "online_features"}
EXPERIMENT_CHANGES: dict[str, tuple[Any, set[str]]] = {
    "name": ("another", set()),
    "description": ("About oil.", set()),
    "owners": (("team:oil",), set()),
    "tags": ({"tier": "gold"}, set()),
    "automation": (ExperimentAutomation(drift_interval_s=300), set()),
    "allowed": ({"model": ("nlinear_v1",)}, set()),
    "nested": ({"outer_folds": 2}, {"nested_cv"}),
    "task": ("regression", TRAINING),
    "features": ({"columns": ("load_pu", "top_oil_c")}, TRAINING),
    "split": ({"reference_steps": 100}, TRAINING | {"splits"}),
    "preprocessing": ({"steps": ()}, TRAINING),
    "targets": (("hot_spot_c",), TRAINING),
    "lookback": (12, TRAINING),
    "history": (96, TRAINING),
    "horizon": (3, TRAINING),
    "model": ({"params": {"max_depth": 2}}, {"tuned_model"}),
    "tuning": ({"trials": 9}, {"tuned_model"}),
    "uncertainty": ({"coverage": None}, {"tuned_model"}),
    "metric": ("rmse", {"tuned_model"}),
    "extra_metrics": (("mse",), {"tuned_model"}),
    "baselines": ((), {"tuned_model"}),
    "seed": (9, {"tuned_model"}),
    "promotion": ({"margin": 0.1}, {"production_alias"}),
    "staleness": ({"max_age": "6h"}, {"serving_reload", "forecasts"}),
    "requests": ({"missing": "refuse"}, {"serving_reload"}),
    "observation": ({"min_observed": 0.5}, {"serving_reload", "forecasts"}),
    "serving": ({"challenger": {"share": 0.2}}, {"serving_reload"}),
    "forecasts": ({"chunk_entities": 100}, {"forecasts"}),
    "drift": ({"quantile": 0.9}, {"drift_report"}),
    "adaptation": ({"step_size": 0.02}, {"forecast_errors"}),
    "truth": ({"labels_from_dataset": True}, {"forecast_errors"}),
}
DATASET_CHANGES: dict[str, tuple[Any, set[str]]] = {
    "name": ("another", TRAINING | {"raw"}),
    "description": ("Oil.", TRAINING),
    "owners": (("team:oil",), set()),
    "tags": ({"tier": "gold"}, set()),
    "automation": ({"new_data_interval_s": 300}, set()),
    "kind": ("tabular", TRAINING | FEATURES | {"raw", "splits"}),
    "source": ({"uri": "rows.csv"}, TRAINING | {"raw"}),
    "time_column": ("time", TRAINING | {"raw"}),
    "time_unit": ("ms", TRAINING | {"raw"}),
    "entity_column": ("unit", TRAINING | {"raw"}),
    "entity_type": ("string", TRAINING | {"raw"}),
    "frequency": ("15min", TRAINING | FEATURES | {"raw", "splits"}),
    "timezone": ("Europe/Berlin", TRAINING | FEATURES | {"raw", "splits"}),
    "weekmask": ("1111110", TRAINING | FEATURES | {"raw", "splits"}),
    "holidays": ((dt.date(2026, 12, 25),), TRAINING | FEATURES | {"raw", "splits"}),
    "week_label": ("end", TRAINING),
    "window_steps": (96, TRAINING | FEATURES | {"splits"}),
    "partition": ("day", TRAINING | FEATURES | {"raw", "splits"}),
    "max_bad_fraction": (0.2, TRAINING | {"raw"}),
    # Which rows come in: where others do, the rows say so, and where none do, no fold is another.
    "removed_column": ("gone", {"raw"}),
    "future_tolerance": ("7D", {"raw"}),
    "max_gap": ("365D", {"raw"}),
    "columns": ({"load_pu": {"max": 4}}, TRAINING | FEATURES | {"raw", "splits"}),
}


def code_versions(experiment: ExperimentConfig) -> dict[str, str | None]:
    return {name: asset.code_version for name, asset in nodes(experiment).items()}


@pytest.fixture(scope="module")
def versions(plain: ExperimentConfig) -> dict[str, str | None]:
    return code_versions(plain)


def test_every_key_of_the_configuration_is_decided_on() -> None:
    assert set(EXPERIMENT_CHANGES) == set(ExperimentConfig.model_fields) - {"dataset"}
    assert set(DATASET_CHANGES) == set(DatasetConfig.model_fields)


@pytest.mark.parametrize("key", EXPERIMENT_CHANGES)
def test_a_changed_experiment_makes_the_assets_it_changes_out_of_date(
    plain: ExperimentConfig, versions: dict[str, str | None], key: str
) -> None:
    value, expected = EXPERIMENT_CHANGES[key]
    if isinstance(value, dict) and key != "tags":
        value = getattr(plain, key).model_copy(update=value)
    now = code_versions(changed(plain, **{key: value}))
    assert {name for name in now if now[name] != versions.get(name)} == expected


@pytest.mark.parametrize("key", DATASET_CHANGES)
def test_a_changed_dataset_makes_the_assets_it_changes_out_of_date(
    plain: ExperimentConfig, versions: dict[str, str | None], key: str
) -> None:
    value, expected = DATASET_CHANGES[key]
    if key == "columns":
        value = plain.dataset.columns | {"extra": ColumnConfig()}
    # Of no other frequency can these be told.
    custom = {"dataset_frequency": "C"} if key in ("weekmask", "holidays") else {}
    if key == "week_label":
        plain = changed(plain, dataset_frequency="W-SUN")
        versions = code_versions(plain)
    now = code_versions(changed(plain, **{f"dataset_{key}": value}, **custom))
    assert {name for name in now if now[name] != versions[name]} == expected


def test_words_about_a_column_leave_its_rows_up_to_date(
    plain: ExperimentConfig, versions: dict[str, str | None]
) -> None:
    columns = plain.dataset.columns | {"load_pu": ColumnConfig(min=0, max=5, unit="pu", description="Load.")}
    now = code_versions(changed(plain, dataset_columns=columns))
    assert {name: now[name] for name in ("raw", "feature_table", "splits")} == {
        name: versions[name] for name in ("raw", "feature_table", "splits")
    }


@pytest.mark.integration
def test_dg_lists_and_checks_the_definitions(tmp_path: Path) -> None:
    write_conf(tmp_path / "conf")
    (tmp_path / "dagster").mkdir()
    shutil.copy(ROOT / "dagster.yaml", tmp_path / "dagster")
    environ = {
        **os.environ,
        "MLPLATFORM_HOME": str(tmp_path / "home"),
        "MLPLATFORM_CONF_DIR": str(tmp_path / "conf"),
        "DAGSTER_HOME": str(tmp_path / "dagster"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    def dg(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["dg", *arguments], cwd=ROOT, env=environ, capture_output=True, text=True, check=False)

    checked = dg("check", "defs")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "All definitions loaded successfully" in checked.stdout + checked.stderr
    listed = dg("list", "defs", "--json")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    found = json.loads(listed.stdout)
    assert f"{EXPERIMENT}/tuned_model" in {asset["asset_key"] for asset in found["assets"]}
    assert f"train_{EXPERIMENT}" in {job["name"] for job in found["jobs"]}
