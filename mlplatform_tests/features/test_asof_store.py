"""The as-of offline store joins what a person would join, row by row."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureStore, Field, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Float32, Int64, String
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mlplatform.features.asof.engine import placed
from mlplatform.features.asof.store import AsOfOfflineStore
from mlplatform_tests.features.asof_yard import (
    KEY,
    SITE,
    START,
    asked,
    config,
    job,
    join,
    machines,
    minute,
    view,
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


def test_columns_that_differ_only_in_case_are_refused_by_both_names(tmp_path: Path) -> None:
    rows = machines([(1, 0, 10)]).assign(Value=[20], other=[30])
    features = [Field(name=name, dtype=Int64) for name in ("value", "Value", "other")]
    stats = view(tmp_path, rows, features=features)
    for name in ("value", "Value"):
        with pytest.raises(ValueError, match="columns 'value' and 'Value', which differ only in case"):
            join(tmp_path, [stats], [f"stats:{name}"], asked([(1, 1)]))
        with pytest.raises(ValueError, match="columns 'value' and 'Value', which differ only in case"):
            AsOfOfflineStore.pull_all_from_table_or_query(
                config(tmp_path), stats.batch_source, ["machine_id"], [name], "at"
            ).to_df()
    assert join(tmp_path, [stats], ["stats:other"], asked([(1, 1)]))["other"].tolist() == [30]
    site = Entity(name="twin", join_keys=["Machine_id"], value_type=ValueType.INT64)
    twin = view(tmp_path, rows.assign(Machine_id=1), name="twin", entities=[KEY, site], features=features)
    with pytest.raises(ValueError, match="'machine_id' and 'Machine_id'"):
        join(tmp_path, [twin], ["twin:other"], asked([(1, 1)]).assign(Machine_id=1))


def test_keys_named_as_the_join_names_its_own_are_refused(tmp_path: Path) -> None:
    row = Entity(name="row", join_keys=["__row"], value_type=ValueType.INT64)
    stats = view(tmp_path, machines([(1, 0, 10)]).rename(columns={"machine_id": "__row"}), entities=[row])
    with pytest.raises(ValueError, match=r"join keys \['__row'\] have names that the as-of store uses"):
        join(tmp_path, [stats], ["stats:value"], asked([(1, 1)]).rename(columns={"machine_id": "__row"}))


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 12), st.none() | st.integers(0, 3)),
        max_size=25,
        unique=True,
    ),
    wanted=st.lists(st.tuples(st.none() | st.integers(0, 3), st.integers(-1, 15)), min_size=1, max_size=15),
    ttl=st.integers(0, 6),
)
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    lazy = job(tmp_path, [stats], ["stats:value"], asked([(1, 1)]))
    pq.write_table(pa.Table.from_pandas(machines([(1, 0, 11)])), tmp_path / "stats.parquet")
    assert lazy.to_arrow()["value"].to_pylist() == [11]
    assert lazy.metadata.features == ["stats:value"]
    assert lazy.metadata.keys == ["machine_id"]
    assert lazy.metadata.max_event_timestamp == minute(1)


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
    with pytest.raises(ValueError, match="must be a pandas DataFrame, a query or None, but is list"):
        join(tmp_path, [stats], ["stats:value"], [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a column name twice"):
        join(tmp_path, [stats], ["stats:value"], pd.concat([wanted, wanted], axis=1))
    other = view(tmp_path, machines([(1, 0, 10)]), name="other")
    with pytest.raises(ValueError, match=r"features named \['value'\]; use full_feature_names"):
        join(tmp_path, [stats, other], ["stats:value", "other:value"], wanted)
    with pytest.raises(ValueError, match="'machine_id' is string in entity_df, as 'one', and int64 in the source"):
        join(tmp_path, [stats], ["stats:value"], wanted.assign(machine_id=["one"]))


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


def test_on_demand_views_may_need_nothing_but_the_request(tmp_path: Path) -> None:
    factor = RequestSource(name="factor_source", schema=[Field(name="factor", dtype=Int64)])

    @on_demand_feature_view(sources=[factor], schema=[Field(name="doubled", dtype=Int64)])
    def doubling(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"doubled": inputs["factor"] * 2})

    store = FeatureStore(config=config(tmp_path))
    store.apply([KEY, view(tmp_path, machines([(1, 0, 10)])), doubling])
    wanted = asked([(2, 1), (1, 1)]).assign(factor=[3, 4])
    lazy = store.get_historical_features(wanted, features=["doubling:doubled"])
    assert lazy.to_df()["doubled"].tolist() == [6, 8]
    assert lazy.to_arrow_reader().read_all()["doubled"].to_pylist() == [6, 8]


def test_a_feature_service_joins_all_its_views(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10), (2, 0, 20)]))
    pump = stats.with_name("pump").with_join_key_map({"machine_id": "pump_id"})
    store = FeatureStore(config=config(tmp_path))
    fan = stats.with_name("fan").with_join_key_map({"machine_id": "fan_id"})
    service = FeatureService(name="service", features=[fan, pump])
    store.apply([KEY, stats, service])
    wanted = asked([(1, 5)]).assign(pump_id=[2], fan_id=[1])
    result = store.get_historical_features(wanted, features=service, full_feature_names=True).to_df()
    assert (result["fan__value"].tolist(), result["pump__value"].tolist()) == ([10], [20])


def test_only_what_was_created_by_then_counts_if_asked_for(tmp_path: Path) -> None:
    rows = [
        (1, 0, 0, 1),
        (1, 2, 9, 2),  # newer, but known late
        (1, 3, 4, 3),
        (1, 0, 5, 4),  # a correction of the first row that comes when a newer row is known
        (1, 3, 8, 5),  # a correction of the newest
        (1, 4, None, 6),  # nobody knows when
    ]
    stats = view(tmp_path, machines(rows, ("machine_id", "at", "created", "value")), created_timestamp_column="created")
    wanted = asked([(1, time) for time in (0, 2, 3, 4, 5, 7, 8, 20)])
    known = join(tmp_path, [stats], ["stats:value"], wanted, filter_by_created_timestamp=True)
    assert known["value"].tolist() == [1, 1, 1, 3, 3, 3, 5, 5]
    assert join(tmp_path, [stats], ["stats:value"], wanted)["value"].tolist() == [4, 2, 5, 6, 6, 6, 6, 6]


def test_text_truth_values_and_nested_values_come_back_in_the_order_of_the_entity_rows(tmp_path: Path) -> None:
    size = 300
    rows = pd.DataFrame(
        {
            "machine_id": np.arange(size),
            "at": START,
            "text": [None if n % 7 == 0 else f"t{n}" for n in range(size)],
            "truth": [None if n % 5 == 0 else n % 2 == 0 for n in range(size)],
            "nested": [[{"n": n}] for n in range(size)],
            "seen": START + pd.to_timedelta(np.arange(size), unit="s"),
        }
    )
    fields = [
        Field(name="text", dtype=String),
        Field(name="truth", dtype=Bool),
        Field(name="nested", dtype=Array(Int64)),
    ]
    stats = view(tmp_path, rows, features=[*fields, Field(name="seen", dtype=Int64)])
    order = np.random.default_rng(0).permutation(size)
    refs = [f"stats:{name}" for name in ("text", "truth", "nested", "seen")]
    lazy = job(tmp_path, [stats], refs, asked([(int(key), 1) for key in order]))
    expected = rows.iloc[order].reset_index(drop=True)
    for table in (lazy.to_arrow(), lazy.to_arrow_reader().read_all()):
        assert table["text"].to_pylist() == expected["text"].tolist()
        assert table["truth"].to_pylist() == expected["truth"].tolist()
        assert table["nested"].to_pylist() == expected["nested"].tolist()
        assert table["seen"].to_pandas().tolist() == expected["seen"].tolist()


def test_batches_may_be_slices_of_longer_arrays() -> None:
    whole = pa.record_batch(
        [
            pa.array([9, 1, 0, 2]),
            pa.array([9.0, None, 0.5, 2.5], pa.float32()),
            pa.array(["nine", "one", None, "two"]),
        ],
        names=["place", "number", "text"],
    )
    table = placed(pa.RecordBatchReader.from_batches(whole.schema, [whole.slice(1, 2), whole.slice(3)]), 3)
    assert table.to_pydict() == {"number": [0.5, None, 2.5], "text": [None, "one", "two"]}


def test_a_query_that_exceeds_its_memory_limit_spills_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 400_000
    times = START + pd.to_timedelta(np.arange(size), unit="s")
    stats = view(tmp_path, pd.DataFrame({"machine_id": 1, "at": times, "value": np.arange(size)}))
    spill = tmp_path / "spill"
    spill.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spill))
    wanted = pd.DataFrame({"machine_id": 1, "event_timestamp": times[::-1]})
    lazy = job(tmp_path, [stats], ["stats:value"], wanted, store_options={"memory_limit": "40MB", "threads": 1})
    expected = np.arange(size)[::-1]
    np.testing.assert_array_equal(lazy.to_arrow()["value"].to_numpy(), expected)
    streamed = lazy.to_arrow_reader()
    assert any(spill.iterdir()), "the stream is still open"
    np.testing.assert_array_equal(streamed.read_all()["value"].to_numpy(), expected)
    assert not list(spill.iterdir())


def test_only_files_that_can_hold_an_answer_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "days"
    folder.mkdir()
    for day in range(3):
        rows = machines([(1, day * 1440, day)])
        pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), folder / f"{day}.parquet")
    stats = view(tmp_path, machines([(1, 0, 0)]), ttl=dt.timedelta(days=1))
    stats.batch_source.file_options.uri = str(folder)
    data = (folder / "0.parquet").read_bytes()
    # The columns of this file cannot be read any more, its footer can.
    (folder / "0.parquet").write_bytes(data[:4] + bytes(200) + data[204:])
    assert join(tmp_path, [stats], ["stats:value"], asked([(1, 1441), (1, 2881)]))["value"].tolist() == [1, 2]
