"""The jobs and the sensor of a dataset: from files that arrive in a folder to the online store."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from dagster import (
    AssetKey,
    DagsterInstance,
    DagsterRunStatus,
    Definitions,
    ExecuteInProcessResult,
    RunRequest,
    SensorResult,
    SkipReason,
    build_sensor_context,
)
from dagster._core.test_utils import create_run_for_test

from mlplatform.config import load_all_experiments, load_dataset
from mlplatform.data.errors import DataError, SourceUnavailableError
from mlplatform.data.news import source_news
from mlplatform.data.raw import ingest
from mlplatform.definitions import build_defs
from mlplatform.defs import passing, sensors
from mlplatform.defs.jobs import ingest_job, materialize_job
from mlplatform.defs.resources import PlatformResource
from mlplatform.defs.sensors import new_data_sensor
from mlplatform.features.retrieval import FeatureStoreFacade
from mlplatform.settings import Settings

DATASET: dict[str, Any] = {
    "name": "pumps",
    "source": {"uri": "readings/*.parquet"},
    "time_column": "time",
    "entity_column": "pump",
    "frequency": "1h",
    "window_steps": 4,
    "columns": {"flow": {}},
}


class Plant:
    """An installation with a dataset, without any experiment, whose files arrive one by one.

    Parameters:
        configured: one with the same configuration, all of it composed.
    """

    def __init__(self, folder: Path, configured: Settings) -> None:
        self.environ = {
            "MLPLATFORM_HOME": str(folder / "home"),
            "MLPLATFORM_CONF_DIR": str(configured.conf_dir),
            "MLPLATFORM_DATA_DIR": str(folder / "data"),
        }
        self.settings = Settings.from_env(self.environ)
        shutil.copytree(configured.home / "cache", self.settings.home / "cache")
        self.files = folder / "data" / "readings"
        self.files.mkdir(parents=True)
        self.dataset = load_dataset("pumps", self.settings)

    def arrive(self, name: str, hours: list[int], flow: float) -> None:
        times = [pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(hours=hour) for hour in hours]
        rows = pd.DataFrame({"time": times, "pump": "p1", "flow": [flow + hour for hour in hours]})
        rows.to_parquet(self.files / f"{name}.parquet", index=False)

    def run(self, job: str, defs: Definitions, config: dict[str, Any] | None = None) -> ExecuteInProcessResult:
        with DagsterInstance.ephemeral() as instance:
            return defs.resolve_job_def(job).execute_in_process(run_config=config, instance=instance)

    def online(self) -> list[float]:
        facade = FeatureStoreFacade(self.dataset, "online", self.settings)
        return np.asarray(facade.load_features("now", ["p1"]).columns["flow"]).tolist()

    def look(self, instance: DagsterInstance | None = None) -> SensorResult | SkipReason:
        sensor = new_data_sensor(self.dataset, ingest_job(self.dataset), materialize_job(self.dataset, full=False))
        with DagsterInstance.ephemeral() if instance is None else contextlib.nullcontext(instance) as used:
            context = build_sensor_context(
                instance=used,
                sensor_name=sensor.name,
                resources={"platform": PlatformResource(environment=self.environ)},
            )
            result = sensor(context)
        assert isinstance(result, SensorResult | SkipReason)
        return result


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An installation with nothing but its configuration, and what the platform remembers of having composed it."""
    folder = tmp_path_factory.mktemp("configured")
    (folder / "conf" / "dataset").mkdir(parents=True)
    (folder / "conf" / "dataset" / "pumps.yaml").write_text(yaml.safe_dump(DATASET))
    settings = Settings.from_env({"MLPLATFORM_HOME": str(folder / "home"), "MLPLATFORM_CONF_DIR": str(folder / "conf")})
    load_all_experiments(settings)
    return settings


@pytest.fixture
def plant(tmp_path: Path, configured: Settings) -> Plant:
    return Plant(tmp_path, configured)


@pytest.fixture
def defs(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> Definitions:
    for name, value in plant.environ.items():
        monkeypatch.setenv(name, value)
    return build_defs(resources={"platform": PlatformResource(environment={**os.environ, **plant.environ})})


def metadata(result: ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(f"pumps__{asset}")
    return {name: value.value for name, value in event.metadata.items()}


def test_increments_reach_the_online_store_and_late_rows_are_not_lost(plant: Plant, defs: Definitions) -> None:
    plant.arrive("a", [0, 1, 3, 4], 10.0)
    assert plant.run("ingest_pumps", defs).success
    np.testing.assert_array_equal(plant.online(), [11, np.nan, 13, 14])
    plant.arrive("late", [2], 10.0)
    result = plant.run("ingest_pumps", defs)
    assert metadata(result, "raw")["rows_read"] == 1
    assert metadata(result, "online_features")["mode"] == "incremental"
    assert plant.online() == [11, 12, 13, 14]


def test_materialise_takes_up_what_another_process_ingested(plant: Plant, defs: Definitions) -> None:
    plant.arrive("a", [0, 1, 2, 3], 10.0)
    ingest(plant.dataset, plant.settings)
    first = plant.run("materialize_pumps", defs)
    assert metadata(first, "online_features")["written"] == 1
    again = plant.run("materialize_pumps", defs)
    assert metadata(again, "online_features")["written"] == 0
    whole = plant.run("materialize_pumps_full", defs)
    assert metadata(whole, "online_features")["mode"] == "full"
    assert metadata(whole, "online_features")["written"] == 1


def test_a_full_ingest_reads_everything_again(plant: Plant, defs: Definitions) -> None:
    plant.arrive("a", [0, 1, 2, 3], 10.0)
    plant.run("ingest_pumps", defs)
    (plant.files / "a.parquet").unlink()
    plant.arrive("b", [0, 1], 20.0)
    plant.run("ingest_pumps", defs, {"ops": {"pumps__raw": {"config": {"full": True}}}})
    assert len(pd.read_parquet(plant.settings.raw_dir / "pumps" / "rows")) == 2


def test_a_dataset_without_experiments_has_assets_and_no_splits(defs: Definitions) -> None:
    keys = defs.resolve_asset_graph().materializable_asset_keys
    assert {key.path[1] for key in keys if key.path[0] == "pumps"} == {"raw", "feature_table", "online_features"}
    assert AssetKey(["fleet", "splits"]) in keys


def request_of(result: SensorResult | SkipReason) -> RunRequest:
    assert isinstance(result, SensorResult)
    assert result.run_requests is not None
    (request,) = result.run_requests
    return request


def skipped(result: SensorResult | SkipReason) -> str:
    assert isinstance(result, SkipReason)
    return result.skip_message or ""


def test_the_sensor_asks_until_the_news_are_stored(plant: Plant, defs: Definitions) -> None:
    plant.arrive("a", [0, 1], 10.0)
    first = request_of(plant.look())
    assert first.job_name == "ingest_pumps"
    # Nothing hangs on a cursor: until a run took them, they are news.
    assert request_of(plant.look()).run_key == first.run_key
    plant.run("ingest_pumps", defs)
    assert isinstance(plant.look(), SkipReason)
    plant.arrive("b", [2], 10.0)
    second = request_of(plant.look())
    assert second.job_name == "ingest_pumps"
    assert second.run_key != first.run_key


def test_one_ingest_at_a_time_and_a_failed_one_is_asked_for_again(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.arrive("a", [0, 1], 10.0)
    with DagsterInstance.ephemeral() as instance:
        first = request_of(plant.look(instance))

        def run(status: DagsterRunStatus) -> str:
            return create_run_for_test(instance, job_name="ingest_pumps", status=status, tags=first.tags).run_id

        open_run = run(DagsterRunStatus.STARTED)
        assert f"run {open_run} is not over yet" in skipped(plant.look(instance))
        instance.delete_run(open_run)
        failed = run(DagsterRunStatus.FAILURE)
        assert f"run {failed} failed; it is tried again at" in skipped(plant.look(instance))
        monkeypatch.setattr(sensors, "INGEST_PAUSE_S", 0.0)
        again = request_of(plant.look(instance))
        assert again.run_key != first.run_key


def test_an_ingest_that_fails_or_is_stopped_leaves_its_news(plant: Plant) -> None:
    plant.arrive("a", [0, 1], 10.0)
    ingest(plant.dataset, plant.settings, should_stop=lambda: True)
    assert source_news(plant.dataset, plant.settings)
    ingest(plant.dataset, plant.settings)
    assert source_news(plant.dataset, plant.settings) is None
    (plant.files / "b.parquet").write_bytes(b"no parquet")
    assert source_news(plant.dataset, plant.settings)
    with pytest.raises(DataError):
        ingest(plant.dataset, plant.settings)
    assert source_news(plant.dataset, plant.settings)


def test_a_source_that_is_away_is_asked_again_by_the_step_and_then_fails_with_its_reason(
    plant: Plant, defs: Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def away(*_: object, **__: object) -> None:
        tries.append(1)
        raise SourceUnavailableError("the folder of readings does not answer")

    monkeypatch.setattr("mlplatform.data.ingest", away, raising=False)
    monkeypatch.setattr(passing, "PAUSE_S", 0.0)
    with pytest.raises(SourceUnavailableError, match="does not answer"):
        plant.run("ingest_pumps", defs)
    assert len(tries) == passing.RETRIES + 1


def test_a_lost_raw_table_makes_everything_news(plant: Plant) -> None:
    plant.arrive("a", [0, 1], 10.0)
    ingest(plant.dataset, plant.settings)
    (plant.settings.raw_dir / "pumps").unlink()
    assert source_news(plant.dataset, plant.settings)


def test_the_sensor_asks_for_materialisation_of_rows_ingested_elsewhere(plant: Plant, defs: Definitions) -> None:
    plant.arrive("a", [0, 1], 10.0)
    ingest(plant.dataset, plant.settings)
    assert request_of(plant.look()).job_name == "materialize_pumps"
    plant.run("materialize_pumps", defs)
    assert isinstance(plant.look(), SkipReason)


def test_a_source_that_is_away_fails_the_look_with_its_reason(plant: Plant) -> None:
    with pytest.raises(DataError, match="readings"):
        plant.look()
