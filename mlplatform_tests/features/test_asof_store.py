"""The as-of offline store joins what a person would join, row by row."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, RequestSource, ValueType
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Int64, String
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mlplatform.features.asof_store import AsOfOfflineStore

START = pd.Timestamp("2024-01-01", tz="UTC")
KEY = Entity(name="machine", join_keys=["machine_id"], value_type=ValueType.INT64)
SITE = Entity(name="site", join_keys=["site_id"], value_type=ValueType.STRING)


def minute(value: float | None) -> pd.Timestamp:
    return pd.NaT if pd.isna(value) else START + pd.Timedelta(minutes=value)


def config(folder: Path, store: str = "mlplatform.features.asof_store.AsOfOfflineStore") -> RepoConfig:
    return RepoConfig(
        project="tests",
        provider="local",
        registry=str(folder / "registry.db"),
        offline_store={"type": store},
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        entity_key_serialization_version=3,
        repo_path=folder,
    )


def view(
    folder: Path,
    rows: pd.DataFrame,
    *,
    name: str = "stats",
    entities: Sequence[Entity] = (KEY,),
    features: Sequence[Field] = (Field(name="value", dtype=Int64),),
    **options: Any,
) -> FeatureView:
    path = folder / f"{name}.parquet"
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), path)
    source_options = {key: options.pop(key) for key in ("created_timestamp_column", "field_mapping") if key in options}
    timestamp = options.pop("timestamp_field", "at")
    source = FileSource(name=f"{name}_source", path=str(path), timestamp_field=timestamp, **source_options)
    types = {"machine_id": Int64, "site_id": String}
    keys = [Field(name=entity.join_key, dtype=types[entity.join_key]) for entity in entities]
    return FeatureView(name=name, entities=list(entities), schema=[*keys, *features], source=source, **options)


def join(
    folder: Path, views: Sequence[FeatureView], refs: list[str], entity_df: pd.DataFrame, **options: Any
) -> pd.DataFrame:
    registry = Mock(list_on_demand_feature_views=Mock(return_value=[]))
    job = AsOfOfflineStore.get_historical_features(
        config(folder), list(views), refs, entity_df, registry, "tests", **options
    )
    frame: pd.DataFrame = job.to_df()
    return frame


def machines(rows: Sequence[tuple[Any, ...]], columns: Sequence[str] = ("machine_id", "at", "value")) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(columns))
    for name in ("at", "created"):
        if name in frame:
            frame[name] = pd.to_datetime([minute(value) for value in frame[name]], utc=True)
    return frame


def asked(rows: Sequence[tuple[int | None, float]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "machine_id": pd.array([key for key, _ in rows], dtype="Int64"),
            "event_timestamp": pd.to_datetime([minute(time) for _, time in rows], utc=True),
        }
    )


def by_hand(
    rows: Sequence[tuple[int, int, int | None, int]], wanted: Sequence[tuple[int | None, int]], ttl: int
) -> list[int | None]:
    """Return the value of the newest, then latest created, row that is known and young enough; one at a time."""
    answers: list[int | None] = []
    for key, time in wanted:
        known = [row for row in rows if row[0] == key and row[1] <= time and (ttl == 0 or row[1] >= time - ttl)]
        newest = max(known, key=lambda row: (row[1], -1 if row[2] is None else row[2]), default=None)
        answers.append(None if newest is None else newest[3])
    return answers


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 12), st.none() | st.integers(0, 3)),
        max_size=25,
        unique=True,
    ),
    wanted=st.lists(st.tuples(st.none() | st.integers(0, 3), st.integers(-1, 15)), min_size=1, max_size=15),
    ttl=st.integers(0, 6),
)
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_equals_a_search_by_hand(
    tmp_path: Path,
    rows: list[tuple[int, int, int | None]],
    wanted: list[tuple[int | None, int]],
    ttl: int,
) -> None:
    numbered = [(*row, number) for number, row in enumerate(rows)]
    frame = machines(numbered, ("machine_id", "at", "created", "value")).astype({"machine_id": "int64"})
    stats = view(tmp_path, frame, created_timestamp_column="created", ttl=dt.timedelta(minutes=ttl))
    result = join(tmp_path, [stats], ["stats:value"], asked(wanted))
    values = [None if pd.isna(value) else int(value) for value in result["value"]]
    assert values == by_hand(numbered, wanted, ttl)
    assert result["machine_id"].isna().tolist() == [key is None for key, _ in wanted]
    assert result["event_timestamp"].tolist() == [minute(time) for _, time in wanted]


def test_a_value_lives_up_to_and_including_its_ttl(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 10, 5)]), ttl=dt.timedelta(minutes=5))
    eps = 1e-6 / 60
    result = join(tmp_path, [stats], ["stats:value"], asked([(1, 10 - eps), (1, 10), (1, 15), (1, 15 + eps)]))
    assert result["value"].isna().tolist() == [True, False, False, True]


def test_order_duplicates_and_other_columns_of_the_entity_rows_are_kept(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10), (2, 0, 20)]))
    wanted = asked([(2, 5), (1, 5), (2, 5), (9, 5)]).assign(
        note=["x", None, "x", "y"], many=[[1], [2, 3], [], None], level=pd.Categorical(["hi", "lo", "hi", "lo"])
    )
    result = join(tmp_path, [stats], ["stats:value"], wanted)
    assert list(result.columns) == ["machine_id", "event_timestamp", "note", "many", "level", "value"]
    assert result["machine_id"].tolist() == [2, 1, 2, 9]
    assert result["note"].tolist() == ["x", None, "x", "y"]
    assert [None if row is None else list(row) for row in result["many"]] == [[1], [2, 3], [], None]
    assert result["level"].dtype == "category"
    assert result["value"].tolist()[:3] == [20, 10, 20]
    assert np.isnan(result["value"].iloc[3])


def test_the_job_runs_only_when_its_result_is_asked_for(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10)]))
    registry = Mock(list_on_demand_feature_views=Mock(return_value=[]))
    job = AsOfOfflineStore.get_historical_features(
        config(tmp_path), [stats], ["stats:value"], asked([(1, 1)]), registry, "tests"
    )
    pq.write_table(pa.Table.from_pandas(machines([(1, 0, 11)])), tmp_path / "stats.parquet")
    assert job.to_arrow()["value"].to_pylist() == [11]
    assert job.metadata.features == ["stats:value"]
    assert job.metadata.keys == ["machine_id"]
    assert job.metadata.max_event_timestamp == minute(1)


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_time_zones_and_resolutions_of_source_and_request_do_not_matter(tmp_path: Path, zone: str, unit: str) -> None:
    rows = machines([(1, 0, 10), (1, 60, 11)])
    rows["at"] = rows["at"].dt.tz_convert(zone).dt.as_unit(unit)
    stats = view(tmp_path, rows)
    wanted = asked([(1, 59), (1, 60)])
    for times in (wanted["event_timestamp"], wanted["event_timestamp"].dt.tz_convert("Asia/Tokyo")):
        result = join(tmp_path, [stats], ["stats:value"], wanted.assign(event_timestamp=times))
        assert result["value"].tolist() == [10, 11]
    naive = wanted.assign(event_timestamp=wanted["event_timestamp"].dt.tz_localize(None))
    text = wanted.assign(event_timestamp=[time.isoformat() for time in naive["event_timestamp"]])
    for frame in (naive, text):
        assert join(tmp_path, [stats], ["stats:value"], frame)["value"].tolist() == [10, 11]


def test_several_views_with_different_keys_join_in_one_call(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10), (2, 0, 20)]), ttl=dt.timedelta(minutes=3))
    weather_rows = machines([("n", 0, 0.5), ("n", 4, 0.75)], ("site_id", "at", "value"))
    weather = view(
        tmp_path, weather_rows, name="weather", entities=[SITE], features=[Field(name="value", dtype=Float32)]
    )
    pair_rows = machines([(1, "n", 1, "p")], ("machine_id", "site_id", "at", "label"))
    pair = view(tmp_path, pair_rows, name="pair", entities=[KEY, SITE], features=[Field(name="label", dtype=String)])
    wanted = asked([(1, 5), (2, 2), (1, 1)]).assign(site_id=["n", "n", "s"])
    refs = ["weather:value", "stats:value", "pair:label"]
    result = join(tmp_path, [stats, weather, pair], refs, wanted, full_feature_names=True)
    assert result["weather__value"].tolist()[:2] == [0.75, 0.5]
    assert result["stats__value"].fillna(-1).tolist() == [-1, 20, 10]
    assert result["pair__label"].tolist() == ["p", None, None]


def test_join_key_maps_join_one_view_twice(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10), (2, 0, 20)]))
    pump = stats.with_name("pump").with_join_key_map({"machine_id": "pump_id"})
    fan = stats.with_name("fan").with_join_key_map({"machine_id": "fan_id"})
    wanted = asked([(1, 1), (2, 1)]).drop(columns="machine_id").assign(pump_id=[1, 2], fan_id=[2, 7])
    result = join(tmp_path, [pump, fan], ["pump:value", "fan:value"], wanted, full_feature_names=True)
    assert result["pump__value"].tolist() == [10, 20]
    assert result["fan__value"].tolist()[0] == 20
    assert np.isnan(result["fan__value"].iloc[1])


def test_field_mappings_are_undone_for_keys_features_and_times(tmp_path: Path) -> None:
    rows = machines([(1, 0, 10), (1, 5, 11)]).rename(columns={"machine_id": "m", "value": 'odd "name', "at": "t"})
    mapping = {"m": "machine_id", 'odd "name': "value", "t": "at"}
    stats = view(tmp_path, rows, field_mapping=mapping, timestamp_field="at")
    assert join(tmp_path, [stats], ["stats:value"], asked([(1, 4), (1, 6)]))["value"].tolist() == [10, 11]


def test_a_view_without_entities_joins_on_time_alone(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10), (1, 5, 11)]).drop(columns="machine_id"), entities=[])
    assert join(tmp_path, [stats], ["stats:value"], asked([(1, 4), (2, 9)]))["value"].tolist() == [10, 11]


def test_arrays_and_nulls_pass_through(tmp_path: Path) -> None:
    rows = machines([(1, 0, 1), (1, 5, 2), (2, 0, 3)]).assign(
        window=[[1.5, float("nan")], None, [-0.0]], value=pd.array([7, None, 9], dtype="Int64")
    )
    fields = [Field(name="window", dtype=Array(Float32)), Field(name="value", dtype=Int64)]
    stats = view(tmp_path, rows, features=fields)
    result = join(tmp_path, [stats], ["stats:window", "stats:value"], asked([(1, 1), (1, 6), (2, 1)]))
    np.testing.assert_array_equal(result["window"].iloc[0], [1.5, np.nan])
    assert result["window"].iloc[1] is None, "the newest row counts even if its value is null"
    assert np.signbit(result["window"].iloc[2][0])


def test_large_requests_do_not_fall_back_to_a_nested_loop(tmp_path: Path) -> None:
    size = 20_000
    rows = pd.DataFrame(
        {"machine_id": 1, "at": START + pd.to_timedelta(np.arange(size), unit="min"), "value": np.arange(size)}
    )
    stats = view(tmp_path, rows)
    wanted = rows.rename(columns={"at": "event_timestamp"})[["machine_id", "event_timestamp"]]
    began = dt.datetime.now(dt.UTC)
    assert join(tmp_path, [stats], ["stats:value"], wanted)["value"].tolist() == list(range(size))
    assert dt.datetime.now(dt.UTC) - began < dt.timedelta(seconds=10)


def test_requests_that_cannot_be_joined_are_refused_with_the_reason(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10)]))
    wanted = asked([(1, 1)])
    with pytest.raises(ValueError, match=r"lacks the join keys \['machine_id'\]"):
        join(tmp_path, [stats], ["stats:value"], wanted.drop(columns="machine_id"))
    with pytest.raises(ValueError, match=r"already has columns \['value'\]"):
        join(tmp_path, [stats], ["stats:value"], wanted.assign(value=1))
    with pytest.raises(ValueError, match="must have a column 'event_timestamp'"):
        join(tmp_path, [stats], ["stats:value"], wanted.drop(columns="event_timestamp"))
    with pytest.raises(ValueError, match="must be a pandas DataFrame"):
        join(tmp_path, [stats], ["stats:value"], None)  # type: ignore[arg-type]


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 9), st.none() | st.integers(0, 2)),
        min_size=1,
        max_size=20,
        unique=True,
    ),
    bounds=st.tuples(st.integers(-1, 10), st.integers(-1, 10)).map(sorted),
)
@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pulls_take_rows_in_range_and_the_latest_of_each_key(
    tmp_path: Path, rows: list[tuple[int, int, int | None]], bounds: list[int]
) -> None:
    numbered = [(*row, number) for number, row in enumerate(rows)]
    frame = machines(numbered, ("machine_id", "at", "created", "value"))
    stats = view(tmp_path, frame, created_timestamp_column="created")
    arguments = (config(tmp_path), stats.batch_source, ["machine_id"], ["value"], "at", "created")
    start, end = (minute(bound).to_pydatetime() for bound in bounds)
    inside = [row for row in numbered if bounds[0] <= row[1] <= bounds[1]]
    pulled = AsOfOfflineStore.pull_all_from_table_or_query(*arguments, start, end).to_df()
    assert sorted(pulled["value"]) == sorted(row[3] for row in inside)
    latest = AsOfOfflineStore.pull_latest_from_table_or_query(*arguments, start, end).to_df()
    expected = [by_hand(inside, [(key, 99)], 0)[0] for key in sorted({row[0] for row in inside})]
    assert latest.sort_values("machine_id")["value"].tolist() == expected


def test_pulls_of_a_view_without_entities_carry_feasts_dummy_key(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10), (1, 5, 11)]).drop(columns="machine_id"), entities=[])
    arguments = (config(tmp_path), stats.batch_source, [], ["value"], "at", None, minute(0), minute(9))
    latest = AsOfOfflineStore.pull_latest_from_table_or_query(*arguments).to_df()
    assert latest[["value", "__dummy_id"]].to_dict("records") == [{"value": 11, "__dummy_id": ""}]


def test_rows_are_appended_to_a_file_and_to_a_folder(tmp_path: Path) -> None:
    rows = machines([(1, 0, 10)])
    stats = view(tmp_path, rows)
    extra = pa.Table.from_pandas(machines([(1, 5, 11)]), preserve_index=False)
    AsOfOfflineStore.offline_write_batch(config(tmp_path), stats, extra, None)
    assert join(tmp_path, [stats], ["stats:value"], asked([(1, 1), (1, 6)]))["value"].tolist() == [10, 11]
    with pytest.raises(ValueError, match="but its source has"):
        AsOfOfflineStore.offline_write_batch(config(tmp_path), stats, extra.select(["value", "at"]), None)

    folder = tmp_path / "parts"
    folder.mkdir()
    (tmp_path / "stats.parquet").rename(folder / "part.parquet")
    stats.batch_source.file_options.uri = str(folder)
    AsOfOfflineStore.offline_write_batch(config(tmp_path), stats, extra.slice(0, 0), None)
    later = pa.Table.from_pandas(machines([(1, 7, 12)]), preserve_index=False)
    AsOfOfflineStore.offline_write_batch(config(tmp_path), stats, later, None)
    assert len(list(folder.glob("*.parquet"))) == 3
    assert join(tmp_path, [stats], ["stats:value"], asked([(1, 6), (1, 8)]))["value"].tolist() == [11, 12]


def test_logged_features_are_added_to_a_folder(tmp_path: Path) -> None:
    logs = pa.table({"request": [1, 2], "value": [0.5, 0.25]})
    logging = LoggingConfig(destination=FileLoggingDestination(path=str(tmp_path / "logs")))
    for _ in range(2):
        AsOfOfflineStore.write_logged_features(config(tmp_path), logs, Mock(), logging, Mock())
    assert pq.read_table(tmp_path / "logs").num_rows == 4


def test_on_demand_views_are_computed_from_the_joined_features(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10), (2, 0, 20)]))
    factor = RequestSource(name="factor_source", schema=[Field(name="factor", dtype=Int64)])

    @on_demand_feature_view(sources=[stats, factor], schema=[Field(name="scaled", dtype=Int64)])
    def scaling(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"scaled": inputs["value"] * inputs["factor"]})

    store = FeatureStore(config=config(tmp_path))
    store.apply([KEY, stats, scaling])
    wanted = asked([(2, 1), (1, 1)]).astype({"machine_id": "int64"}).assign(factor=[3, 4])
    result = store.get_historical_features(wanted, features=["stats:value", "scaling:scaled"]).to_df()
    assert result["scaled"].tolist() == [60, 40]


@pytest.mark.parametrize("peer", ["dask", "duckdb"])
def test_agrees_with_feasts_own_stores(tmp_path: Path, peer: str) -> None:
    pytest.importorskip({"dask": "dask", "duckdb": "ibis"}[peer])
    times = list(itertools.product([1, 2, 3], range(0, 20, 4)))
    rows = machines([(key, at, at + 1, key * 100 + at) for key, at in times], ("machine_id", "at", "created", "value"))
    late = machines([(1, 8, 30, -1), (2, 8, 2, -2)], ("machine_id", "at", "created", "value"))
    stats = view(tmp_path, pd.concat([rows, late]), created_timestamp_column="created", ttl=dt.timedelta(minutes=5))
    wanted = asked([(3, 25), (1, 9), (2, 9), (1, 8), (4, 8), (2, 4), (3, 21)]).astype({"machine_id": "int64"})
    answers = {}
    for store_type in (peer, "mlplatform.features.asof_store.AsOfOfflineStore"):
        folder = tmp_path / store_type
        folder.mkdir()
        store = FeatureStore(config=config(folder, store_type))
        store.apply([KEY, stats])
        result = store.get_historical_features(wanted.copy(), features=["stats:value"]).to_df()
        answers[store_type] = result.set_index(["machine_id", "event_timestamp"])["value"].astype(float)
    theirs, ours = answers.values()
    assert len(theirs) >= 5
    pd.testing.assert_series_equal(ours.reindex(theirs.index), theirs)
    # Feast's default store drops an entity row when all its candidates have expired; here it stays, without a value.
    assert ours.drop(theirs.index).isna().all()
    assert len(ours) == len(wanted)
