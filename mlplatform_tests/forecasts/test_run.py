"""A run over all entities: who is left out and why, past origins, and what a second or a killed run leaves."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest

from mlplatform.config import ConfigError, ExperimentConfig, StalenessConfig, load_experiment
from mlplatform.datamodule import read_manifest
from mlplatform.forecasts import answering as answering_module
from mlplatform.forecasts import make_forecasts, plot_sample, read_forecasts, read_left_out
from mlplatform.monitoring import errors_folder, update_errors
from mlplatform.registry.batch import answer_batch
from mlplatform.registry.pairs import PairNotFoundError
from mlplatform.settings import Settings
from mlplatform.testing.forks import Fork
from mlplatform.testing.meters import END, meter_rows, meter_yard, write_rows
from mlplatform.testing.yard import EXPERIMENT, TRAIN, Yard, write_experiment

HORIZON = 6
HOURS = {"a": 480, "b": 480, "c": 480, "gappy": 480, "young": 20}
ORIGIN = pd.Timestamp(END)


def measured() -> pd.DataFrame:
    """Hourly rows; of `gappy` only every tenth hour of the last days was measured, and `old` ended long ago."""
    rows = meter_rows(HOURS)
    old = meter_rows({"old": 300}, end="2024-01-14T00:00:00Z")
    is_gap = (rows["line"] == "gappy") & (rows["time"] > "2024-01-17") & (rows.index % 10 != 0)
    return pd.concat([rows[~is_gap], old], ignore_index=True)


@pytest.fixture(scope="module")
def meters(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Yard:
    """Meters with a pair in production, after the job that forecasts them."""
    yard = meter_yard(tmp_path_factory.mktemp("meters"), mlflow_database, measured())
    assert yard.run(TRAIN).success
    return yard


def changed(yard: Yard, **values: Any) -> ExperimentConfig:
    """Return the yard's experiment with other values."""
    groups = {key: getattr(yard.config, key).model_copy(update=value) for key, value in values.items()}
    return yard.config.model_copy(update=groups)


def forecast(yard: Yard, config: ExperimentConfig | None = None, time_point: str = "now") -> pd.DataFrame:
    report = make_forecasts(config or yard.config, yard.settings, time_point)
    return read_forecasts(yard.settings, EXPERIMENT, report.origin)


def test_the_asset_tells_what_the_run_did(meters: Yard) -> None:
    result = meters.run(f"forecast_{EXPERIMENT}")
    (event,) = [each for each in result.get_asset_materialization_events() if each.asset_key.path[-1] == "forecasts"]
    metadata = {key: value.value for key, value in event.materialization.metadata.items()}
    assert (metadata["dagster/row_count"], metadata["entities"]) == (6 * HORIZON, 6)
    assert metadata["origin"] == ORIGIN.isoformat()
    assert metadata["version"] == 1
    assert metadata["left_out"] == "none"
    assert metadata["forecast"].startswith("![the forecast of a](data:image/png;base64,")
    assert Path(metadata["path"]).is_dir()
    # What people without this platform read it with.
    table = ds.dataset(metadata["path"], format="parquet").to_table().to_pandas()
    assert set(table["entity_id"]) == {*HOURS, "old"}
    assert table["value"].notna().all()
    assert set(table["timestamp"][table["entity_id"] == "a"]) == set(pd.date_range(ORIGIN, periods=7, freq="h")[1:])


def test_the_registered_forecaster_answers_the_same(meters: Yard) -> None:
    found = forecast(meters, changed(meters, forecasts={"chunk_entities": 2})).set_index(["entity_id", "timestamp"])
    rows = meter_rows(HOURS)
    rows = rows[rows["line"].isin(["a", "b", "c"])]
    rows = rows.rename(columns={"line": "entity_id", "time": "event_timestamp"})
    rows["event_timestamp"] = pd.to_datetime(rows["event_timestamp"], utc=True)
    expected = answer_batch(meters.pairs.load(meters.pairs.resolve(EXPERIMENT)), rows)
    keys = pd.MultiIndex.from_frame(expected[["entity_id", "event_timestamp"]])
    assert found["value"].loc[keys].tolist() == expected["load"].tolist()
    assert found["lower"].loc[keys].tolist() == expected["load_lower"].tolist()
    assert found["upper"].loc[keys].tolist() == expected["load_upper"].tolist()


def test_errors_of_a_run_are_those_of_its_forecasts(meters: Yard) -> None:
    origin = ORIGIN - pd.Timedelta(hours=2 * HORIZON)
    made = forecast(meters, time_point=origin.isoformat()).set_index(["entity_id", "timestamp"])
    update_errors(meters.config, meters.settings)
    piece = errors_folder(meters.settings, EXPERIMENT) / "batch" / f"origin={origin:%Y%m%dT%H%M%S}Z.parquet"
    found = (
        pd.read_parquet(piece).rename(columns={"event_timestamp": "timestamp"}).set_index(["entity_id", "timestamp"])
    )
    # The pair was trained on the time that `old` is forecast for.
    assert set(found.index) == set(made.drop(index="old").index)
    made = made.loc[found.index]
    for name in ("value", "lower", "upper", "step"):
        assert found[name].tolist() == made[name].tolist()
    rows = measured().assign(time=lambda rows: pd.to_datetime(rows["time"], utc=True))
    truth = pd.Series(rows.set_index(["line", "time"])["load"].reindex(found.index).to_numpy(), found.index)
    made = made.set_axis(found.index)
    np.testing.assert_allclose(found["truth"].astype(float), truth, rtol=1e-6)
    # Of what was never measured there is no error, neither 0 nor another row's.
    assert 0 < truth.isna().sum() < len(truth)
    np.testing.assert_allclose(found["error"].astype(float), made["value"] - truth, rtol=1e-4, atol=1e-5)
    inside = ((truth >= made["lower"]) & (truth <= made["upper"])).where(truth.notna())
    assert found["is_inside"].astype("boolean").tolist() == inside.astype("boolean").tolist()


def test_forecasts_of_moments_that_the_pair_was_trained_on_have_no_errors(meters: Yard) -> None:
    split_version = meters.pairs.resolve(EXPERIMENT).tags["split_version"]
    border = pd.Timestamp(read_manifest(meters.settings, meters.config.dataset.name, split_version).borders["train"][1])
    for hours, counted in ((HORIZON + 1, 0), (3, HORIZON - 2)):
        origin = border - pd.Timedelta(hours=hours)
        made = forecast(meters, time_point=origin.isoformat())
        assert set(made["step"]) == {*range(1, HORIZON + 1)}
        update_errors(meters.config, meters.settings)
        piece = errors_folder(meters.settings, EXPERIMENT) / "batch" / f"origin={origin:%Y%m%dT%H%M%S}Z.parquet"
        found = pd.read_parquet(piece)
        assert found["step"].nunique() == counted
        assert (found["event_timestamp"] >= border).all()


@pytest.mark.parametrize("name", ["chunk-00000.parquet", "_run.json"])
def test_a_damaged_run_keeps_no_other_s_errors_back(meters: Yard, caplog: pytest.LogCaptureFixture, name: str) -> None:
    origins = [ORIGIN - pd.Timedelta(hours=hours) for hours in (40, 30)]
    for origin in origins:
        forecast(meters, time_point=origin.isoformat())
    first, second = (f"origin={origin:%Y%m%dT%H%M%S}Z" for origin in origins)
    batch = errors_folder(meters.settings, EXPERIMENT) / "batch"
    for piece in (first, second):
        (batch / f"{piece}.parquet").unlink(missing_ok=True)
    path = (meters.settings.forecasts_dir / EXPERIMENT / first).resolve() / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    update_errors(meters.config, meters.settings)
    assert not (batch / f"{first}.parquet").exists()
    assert (batch / f"{second}.parquet").exists()
    assert f"{path} cannot be read and is left out" in caplog.text
    path.write_bytes(whole)
    update_errors(meters.config, meters.settings)
    assert (batch / f"{first}.parquet").exists()


def test_who_cannot_be_answered_is_listed_with_the_reason(meters: Yard) -> None:
    # At noon of the next day the features of all but `old` are half a day old.
    config = changed(meters, observation={"min_observed": 0.9})
    config = config.model_copy(update={"staleness": StalenessConfig(max_age="2D")})
    moment = "2024-01-21T12:00:00Z"
    report = make_forecasts(config, meters.settings, moment)
    assert report.left_out == {"too_little_observed": 2, "stale": 1}
    assert report.entities == 3
    left_out = read_left_out(meters.settings, EXPERIMENT, report.origin).set_index("entity_id")
    assert left_out["reason"].to_dict() == {
        "gappy": "too_little_observed",
        "young": "too_little_observed",
        "old": "stale",
    }
    assert left_out["found"]["old"] == ("features of 2024-01-14T00:00:00Z, 7 days 12:00:00 old; at most 2D is allowed")
    assert left_out["found"]["young"].endswith("of the lookback was measured, and min_observed is 90.0%")
    flagged = config.model_copy(update={"staleness": StalenessConfig(max_age="2D", action="flag")})
    found = forecast(meters, flagged, moment)
    assert found.groupby("entity_id")["stale"].first().to_dict() == {"a": False, "b": False, "c": False, "old": True}


def test_a_run_that_answers_nobody_leaves_a_table_without_rows(meters: Yard) -> None:
    config = meters.config.model_copy(update={"staleness": StalenessConfig(max_age="1h")})
    report = make_forecasts(config, meters.settings)
    assert (report.rows, report.left_out) == (0, {"stale": 6})
    assert read_forecasts(meters.settings, EXPERIMENT, report.origin).empty
    assert report.origin == ORIGIN


def test_entities_that_were_never_materialised_are_left_out(meters: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlplatform.forecasts import run

    ranges = run.present_ranges

    def more(*arguments: Any) -> pd.DataFrame:
        found = ranges(*arguments)
        return pd.concat([found, found[:1].assign(entity_id="nobody")], ignore_index=True)

    monkeypatch.setattr(run, "present_ranges", more)
    report = make_forecasts(meters.config, meters.settings)
    assert (report.entities, report.left_out) == (6, {"unknown": 1})


def test_without_a_production_pair_nothing_is_written(meters: Yard) -> None:
    write_experiment(meters.conf, "untrained", targets=["load"], baselines=[{"name": "repeat_last"}])
    config = load_experiment("untrained", settings=meters.settings)
    with pytest.raises(PairNotFoundError):
        make_forecasts(config, meters.settings)
    with pytest.raises(FileNotFoundError, match="run the job forecast_untrained"):
        read_forecasts(meters.settings, "untrained")


def test_a_second_run_replaces_the_first(meters: Yard) -> None:
    first = forecast(meters)
    fewer = changed(meters, observation={"min_observed": 0.9}, forecasts={"chunk_entities": 1})
    assert set(forecast(meters, fewer)["entity_id"]) == {"a", "b", "c", "old"}
    again = forecast(meters)
    pd.testing.assert_frame_equal(again.drop(columns="age_seconds"), first.drop(columns="age_seconds"))
    assert not list((meters.settings.forecasts_dir / EXPERIMENT).glob(".staged.*"))


def die_after_two_chunks(config: ExperimentConfig, settings: Settings) -> None:
    answer = answering_module.Answering.answer
    calls = []

    def mortal(self: Any, entities: Any) -> Any:
        calls.append(entities)
        if len(calls) > 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer(self, entities)

    answering_module.Answering.answer = mortal  # type: ignore[method-assign]
    make_forecasts(config, settings)


def test_a_killed_run_leaves_the_table_of_before_and_the_next_one_clears_up(meters: Yard) -> None:
    before = forecast(meters)
    config = changed(meters, forecasts={"chunk_entities": 1})
    with Fork(die_after_two_chunks, config, meters.settings) as child:
        assert child.wait() == -signal.SIGKILL, child.stderr
    home = meters.settings.forecasts_dir / EXPERIMENT
    assert len(list(home.glob(".staged.*/chunk-*.parquet"))) == 2
    pd.testing.assert_frame_equal(read_forecasts(meters.settings, EXPERIMENT, ORIGIN), before)
    forecast(meters, config)
    assert not list(home.glob(".staged.*"))


def test_a_past_origin_reads_what_was_known_then(meters: Yard, tmp_path: Path, mlflow_database: Path) -> None:
    rows, settings = measured(), meters.settings
    copied = meters.copy_to(tmp_path, mlflow_database)
    shared = {
        "MLPLATFORM_DATA_DIR": str(tmp_path),
        "MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri,
        "MLPLATFORM_ARTIFACT_ROOT": settings.mlflow_artifact_root,
    }
    yard = replace(copied, environ={**copied.environ, **shared})
    then = pd.Timestamp.now(tz="UTC")
    first = forecast(yard, time_point=then.isoformat())
    online = forecast(yard)
    assert first["value"].tolist() == online["value"].tolist()
    past = forecast(yard, time_point="2024-01-15T06:30:00Z").set_index("entity_id")
    assert set(past.loc["a", "window_end"]) == {pd.Timestamp("2024-01-15T06:00Z")}
    assert set(past["origin"]) == {pd.Timestamp("2024-01-15T06:30Z")}
    corrected = rows.assign(load=rows["load"].mask(rows["time"] == "2024-01-15T05:00:00Z", 40.0))
    later = meter_rows({"a": 485}, end="2024-01-21T04:00:00Z").tail(5)
    last = (corrected["line"] == "b") & (corrected["time"] == END)
    corrected = pd.concat([corrected.assign(load=corrected["load"].mask(last, 3.0)), later], ignore_index=True)
    write_rows(yard, corrected)
    assert yard.run("ingest_yard").success
    for time_point, before in ((then.isoformat(), first), ("2024-01-15T06:30:00Z", past.reset_index())):
        found = forecast(yard, time_point=time_point)
        assert found["value"].to_numpy().tobytes() == before["value"].to_numpy().tobytes()
    now = forecast(yard).set_index("entity_id")
    assert now["origin"].iloc[0] == pd.Timestamp("2024-01-21T04:00Z")
    assert now.loc["b", "value"].tolist() != online.set_index("entity_id").loc["b", "value"].tolist()


@pytest.mark.parametrize("protocol", ["file", "memory"])
def test_a_copy_holds_the_same_table(meters: Yard, tmp_path: Path, protocol: str) -> None:
    target = f"{protocol}://{tmp_path}/lake"
    config = changed(meters, forecasts={"path": target, "chunk_entities": 4})
    for _ in range(2):
        report = make_forecasts(config, meters.settings)
        assert report.copied_to == f"{target}/{EXPERIMENT}/{report.path.name}"
        filesystem, place = fsspec.core.url_to_fs(report.copied_to)
        names = sorted(path.rpartition("/")[2] for path in filesystem.ls(place, detail=False))
        assert [name.partition("-")[0] for name in names] == ["_left_out", "_run.json", "chunk", "chunk"]
        tables = [pd.read_parquet(f"{report.copied_to}/{name}") for name in names[2:]]
        copied = pd.concat(tables, ignore_index=True)
        own = read_forecasts(meters.settings, EXPERIMENT, report.origin)
        assert copied["value"].tolist() == own["value"].tolist()


def test_an_address_without_a_driver_says_so_and_the_table_stands(meters: Yard) -> None:
    config = changed(meters, forecasts={"path": "nowhere://bucket/lake"})
    with pytest.raises(ValueError, match=r"forecasts\.path 'nowhere://bucket/lake' cannot be opened"):
        make_forecasts(config, meters.settings)
    assert len(read_forecasts(meters.settings, EXPERIMENT, ORIGIN)) == 6 * HORIZON


def test_one_entity_can_be_looked_at(meters: Yard) -> None:
    report = make_forecasts(meters.config, meters.settings)
    assert report.sample is not None
    assert (report.sample.entity, report.sample.target) == ("a", "load")
    own = forecast(meters)
    np.testing.assert_array_equal(report.sample.point, own["value"][:HORIZON])
    assert plot_sample(report.sample).startswith(b"\x89PNG")


def test_a_database_is_named_by_an_environment_variable(meters: Yard) -> None:
    write_experiment(meters.conf, "wrong", forecasts={"database": {"address_env": "postgresql://me:pw@host/db"}})
    with pytest.raises(ConfigError, match=r"forecasts\.database\.address_env"):
        load_experiment("wrong", settings=meters.settings)
