"""Opening the Feast repository, applying datasets, and the plain `feast` command line on the same repository."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
import yaml
from feast import ValueType

from mlplatform.config import ConfigError, DatasetConfig, load_dataset, options
from mlplatform.features.definitions import build_definitions
from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.online import read_windows
from mlplatform.features.store import apply_dataset, open_store, redis_connection, repo_config
from mlplatform.features.table import features_path, write_feature_table, write_window_table
from mlplatform.settings import Settings
from mlplatform_tests.features.conftest import raw_frame, tabular, tabular_frame, timeseries

REPOSITORY = Path(__file__).parents[2] / "feature_repo"


def written(name: str, settings: Settings) -> DatasetConfig:
    dataset = timeseries(name)
    write_feature_table(raw_frame(), dataset, settings)
    write_window_table(dataset, settings)
    return dataset


def test_definitions_follow_the_dataset(settings: Settings) -> None:
    objects = build_definitions(written("plant", settings), settings)
    assert [item.name for item in objects] == ["plant_entity", "plant_features", "plant_windows"]
    assert objects.entity.value_type == ValueType.INT64
    assert objects.windows is not None
    fields = {field.name: field for view in (objects.features, objects.windows) for field in view.features}
    assert {name: str(field.dtype) for name, field in fields.items()} == {
        "load": "Float32",
        "oil": "Float32",
        "mode": "String",
        "window_load": "Array(Float32)",
        "window_oil": "Array(Float32)",
        "window_mode": "Array(String)",
        "end_ns": "Int64",
    }
    assert fields["load"].tags == {"unit": "kW"}
    assert fields["window_load"].description == "Load"


def test_text_ids_and_tabular_data_have_their_own_definitions(settings: Settings) -> None:
    write_feature_table(tabular_frame(), tabular(), settings)
    objects = build_definitions(tabular(), settings)
    assert objects.windows is None
    assert objects.entity.value_type == ValueType.STRING


def test_a_dataset_without_a_table_cannot_be_applied(settings: Settings) -> None:
    with pytest.raises(FeatureStoreError, match=r"features\.parquet does not exist; run write_feature_table first"):
        apply_dataset(timeseries("plant"), settings)


def test_applying_again_keeps_other_datasets_and_takes_changes(settings: Settings) -> None:
    first, second = written("first", settings), written("second", settings)
    assert apply_dataset(first, settings) == ("first_entity", "first_features", "first_windows")
    apply_dataset(second, settings)
    changed = first.model_copy(update={"columns": {"load": first.columns["load"]}})
    apply_dataset(changed, settings)
    views = {view.name: view for view in open_store(settings).list_feature_views()}
    assert sorted(views) == ["first_features", "first_windows", "second_features", "second_windows"]
    assert [field.name for field in views["first_features"].features] == ["load"]


def test_datasets_applied_at_the_same_time_are_all_there(settings: Settings) -> None:
    datasets = [written(f"plant_{number}", settings) for number in range(6)]
    threads = [threading.Thread(target=apply_dataset, args=(dataset, settings)) for dataset in datasets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(open_store(settings).list_feature_views()) == 12


def test_a_store_is_opened_once_per_thread(settings: Settings) -> None:
    other: list[object] = []
    thread = threading.Thread(target=lambda: other.append(open_store(settings)))
    thread.start()
    thread.join()
    assert open_store(settings) is open_store(settings)
    assert other[0] is not open_store(settings)


def test_the_yaml_file_says_what_the_platform_uses(settings: Settings) -> None:
    text = (REPOSITORY / "feature_store.yaml").read_text().replace("${MLPLATFORM_HOME}", str(settings.home))
    assert yaml.safe_load(text) == repo_config(settings)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", "cache:6379,db=0"),
        ("redis://cache:7000/3", "cache:7000,db=3"),
        ("rediss://me:p%40ss=1@cache", 'cache:6379,db=0,ssl=true,username="me",password="p@ss=1"'),
    ],
)
def test_a_redis_address_becomes_feasts_connection_string(url: str, expected: str) -> None:
    assert redis_connection(url) == expected
    settings = Settings.from_env({"MLPLATFORM_HOME": "/nowhere", "MLPLATFORM_REDIS_URL": url})
    assert repo_config(settings)["online_store"]["type"] == "redis"
    assert "cache" not in repr(settings)


@pytest.mark.parametrize("url", ["http://cache", "redis://", "redis://:secret@cache:port", "redis://:secret,1@cache"])
def test_a_bad_redis_address_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(FeatureStoreError, match="MLPLATFORM_REDIS_URL") as caught:
        redis_connection(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_every_packaged_dataset_loads_on_its_own(settings: Settings) -> None:
    for name in options("dataset", settings):
        assert load_dataset(name, settings).name == name


def test_a_dataset_file_is_validated(tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "dataset"
    folder.mkdir(parents=True)
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path), "MLPLATFORM_CONF_DIR": str(tmp_path / "conf")})
    with pytest.raises(ConfigError, match="unknown dataset 'plant'; known: "):
        load_dataset("plant", settings)
    write_dataset(folder / "plant.yaml", timeseries("plant"))
    assert load_dataset("plant", settings) == timeseries("plant")
    write_dataset(folder / "plant.yaml", timeseries("other"))
    with pytest.raises(ConfigError, match="name is 'other', but must equal the file's name"):
        load_dataset("plant", settings)
    (folder / "plant.yaml").write_text("name: plant\nkind: table\n")
    with pytest.raises(ConfigError, match="kind = 'table'"):
        load_dataset("plant", settings)
    (folder / "plant.yaml").write_text("name: [plant\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_dataset("plant", settings)


def write_dataset(path: Path, dataset: DatasetConfig) -> None:
    path.write_text(yaml.safe_dump(dataset.model_dump(mode="json")))


@pytest.mark.integration
def test_the_feast_command_line_applies_and_materializes_the_repository(tmp_path: Path) -> None:
    environment = {
        "MLPLATFORM_HOME": str(tmp_path / "home"),
        "MLPLATFORM_CONF_DIR": str(tmp_path / "conf"),
    }
    settings = Settings.from_env(environment)
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    plant = written("plant", settings)
    for dataset in (plant, timeseries("not_yet_written")):
        write_dataset(tmp_path / "conf" / "dataset" / f"{dataset.name}.yaml", dataset)
    feast = str(Path(sys.executable).parent / "feast")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [feast, *arguments],
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    applied = run("apply")
    assert "plant_windows" in applied
    assert "not_yet_written" not in applied
    run("materialize-incremental", "2024-06-01T00:00:00")
    panel = read_windows(plant, [1, 2], ["load"], 3, settings)
    stored = pd.read_parquet(features_path(plant, settings)).groupby("entity_id")["load"].tail(3)
    assert panel.columns["load"].tobytes() == stored.to_numpy().tobytes()
