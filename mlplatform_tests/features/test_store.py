"""Opening the Feast repository, applying datasets, and the plain `feast` command line on the same repository."""

from __future__ import annotations

import datetime as dt
import threading
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pytest
import yaml
from feast import ValueType

from mlplatform.config import ConfigError, DatasetConfig, load_dataset, options
from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.feast.definitions import build_definitions
from mlplatform.features.feast.repository import apply_dataset, open_store, registered, repo_config
from mlplatform.features.online.materialize import materialize_online
from mlplatform.features.online.read import read_windows
from mlplatform.features.retrieval.offline import offline_windows
from mlplatform.features.tables.feature_table import features_path
from mlplatform.settings import Settings
from mlplatform.testing import forks, write_feature_table
from mlplatform_tests.data.servers import start_postgres
from mlplatform_tests.features.conftest import raw_frame, tabular, tabular_frame, timeseries

REPOSITORY = Path(__file__).parents[2] / "feature_repo"


def written(name: str, settings: Settings) -> DatasetConfig:
    dataset = timeseries(name)
    write_feature_table(raw_frame(), dataset, settings)
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
    with pytest.raises(FeatureStoreError, match="rows does not exist; materialise plant/feature_table first"):
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


def test_a_changed_registry_is_seen_by_a_thread_that_has_read_it(settings: Settings) -> None:
    dataset = written("plant", settings)
    apply_dataset(dataset, settings)
    fewer = dataset.model_copy(update={"columns": {"load": dataset.columns["load"]}})
    first = registered(dataset, settings)
    assert registered(dataset, settings) is first
    thread = threading.Thread(target=apply_dataset, args=(fewer, settings))
    thread.start()
    thread.join()
    assert [field.name for field in registered(dataset, settings).features.features] == ["load"]
    with pytest.raises(FeatureStoreError, match="'other' is not registered: it was never applied, or"):
        registered(timeseries("other"), settings)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_settings(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Settings:
    """Return settings whose registry is an empty database."""
    if request.param == "sqlite":
        return replace(settings, feast_registry=f"sqlite:///{tmp_path / 'registry.sqlite'}")
    return replace(settings, feast_registry=request.getfixturevalue("postgres_registry"))


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    server = start_postgres(tmp_path_factory.mktemp("registry"))
    yield server
    server.cleanup()


@pytest.fixture
def postgres_registry(postgres_server: Any) -> str:
    postgres_server.psql("DROP DATABASE IF EXISTS feast WITH (FORCE);")
    postgres_server.psql("CREATE DATABASE feast;")
    uri = urlsplit(postgres_server.get_uri())
    return f"postgresql+psycopg://{uri.username}:secret@/feast?{uri.query}"


def test_the_registry_can_be_a_database(database_settings: Settings) -> None:
    dataset = written("plant", database_settings)
    apply_dataset(dataset, database_settings)
    materialize_online(dataset, database_settings)
    panel = read_windows(dataset, [1, 2], ["load"], 3, database_settings)
    (offline,) = offline_windows(dataset, [1, 2], ["now"], ["load"], 3, database_settings)
    assert panel.columns["load"].tobytes() == offline.columns["load"].tobytes()
    assert not (database_settings.feast_dir / "registry.db").exists()
    store = open_store(database_settings)
    newest = store.registry.get_feature_view("plant_windows", "mlplatform").most_recent_end_time
    assert newest == dt.datetime(2024, 3, 2, 15, tzinfo=dt.UTC)
    fewer = dataset.model_copy(update={"columns": {"load": dataset.columns["load"]}})
    write_feature_table(raw_frame(), fewer, database_settings)
    apply_dataset(fewer, database_settings)
    assert [field.name for field in registered(fewer, database_settings).features.features] == ["load"]
    assert database_settings.feast_registry is not None
    for shown in (repr(store), repr(store.config), repr(repo_config(database_settings)), repr(database_settings)):
        assert database_settings.feast_registry not in shown
        assert "secret" not in shown


def test_two_installations_change_one_database_at_the_same_time(
    postgres_registry: str, settings: Settings, tmp_path: Path
) -> None:
    shared = replace(settings, feast_registry=postgres_registry)
    homes = [replace(shared, home=tmp_path / f"home_{number}") for number in range(4)]
    datasets = [written(f"plant_{number}", home) for number, home in enumerate(homes)]
    errors: list[BaseException] = []

    def apply(dataset: DatasetConfig, home: Settings) -> None:
        try:
            apply_dataset(dataset, home)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=apply, args=pair) for pair in zip(datasets, homes, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(open_store(homes[0]).registry.list_feature_views("mlplatform")) == 8


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql+psycopg://me:secret@127.0.0.1:1/feast", r"the Feast registry \(postgresql at 127\.0\.0\.1:1\)"),
        ("nonsense:secret", "MLPLATFORM_FEAST_REGISTRY must be a database address"),
        ("nosuch://me:secret@host/feast", "MLPLATFORM_FEAST_REGISTRY must be a database address"),
    ],
)
def test_a_registry_that_cannot_be_reached_is_named_without_its_password(
    url: str, message: str, settings: Settings
) -> None:
    with pytest.raises(FeatureStoreError, match=message) as caught:
        open_store(replace(settings, feast_registry=url))
    text = "".join(traceback.format_exception(caught.value))
    assert "secret" not in text


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

    def run(*arguments: str) -> str:
        done = forks.run(["feast", *arguments], folder=REPOSITORY, environ=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    applied = run("apply")
    assert "plant_windows" in applied
    assert "not_yet_written" not in applied
    run("materialize-incremental", "2024-06-01T00:00:00")
    panel = read_windows(plant, [1, 2], ["load"], 3, settings)
    stored = pd.read_parquet(features_path(plant, settings)).groupby("entity_id")["load"].tail(3)
    assert panel.columns["load"].tobytes() == stored.to_numpy().tobytes()
