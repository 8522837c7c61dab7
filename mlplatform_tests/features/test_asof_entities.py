"""The entity rows of a point-in-time join: DataFrames of every shape, queries, and none."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore, Field
from feast.types import Int64

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
    values,
    view,
)

REFS = ["stats:value"]


def test_the_index_does_not_count_and_other_columns_stay_as_they_are(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10), (2, 0, 20)]))
    wanted = asked([(2, 5), (1, 5), (2, 5)]).assign(
        naive=pd.to_datetime(["2024-05-01", None, "2024-05-03"]),
        zoned=pd.to_datetime(["2024-05-01", "2024-05-02", None]).tz_localize("Asia/Tokyo"),
        nested=[{"a": [1, 2]}, None, {"a": []}],
        level=pd.Categorical(["hi", "lo", "hi"], categories=["lo", "hi"], ordered=True),
        whole=np.array([1, 2, 3], dtype=np.int8),
    )
    wanted.index = pd.MultiIndex.from_tuples([("b", 1), ("a", 1), ("b", 1)])
    before = wanted.copy(deep=True)
    result = join(tmp_path, [stats], REFS, wanted)
    pd.testing.assert_frame_equal(wanted, before)
    assert result["value"].tolist() == [20, 10, 20]
    assert isinstance(result.index, pd.RangeIndex)
    others = ["naive", "zoned", "level", "whole"]
    pd.testing.assert_frame_equal(result[others], wanted[others].reset_index(drop=True))
    assert [None if row is None else list(row["a"]) for row in result["nested"]] == [[1, 2], None, []]


def test_no_entity_rows_give_an_empty_result_with_all_columns(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10)]), created_timestamp_column="")
    lazy = job(tmp_path, [stats], REFS, asked([]))
    for table in (lazy.to_arrow(), lazy.to_arrow_reader().read_all()):
        assert (table.num_rows, table.column_names) == (0, ["machine_id", "event_timestamp", "value"])
        assert table.schema.field("value").type == pa.int64()
    assert lazy.metadata.min_event_timestamp is None


def test_rows_without_a_time_or_a_key_get_no_features(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10), (None, 0, 30)]).astype({"machine_id": "Int64"}))
    nowhere = asked([(1, None), (None, 5), (1, 5)])
    assert values(join(tmp_path, [stats], REFS, nowhere)) == [None, None, 10]
    assert values(join(tmp_path, [stats], REFS, nowhere.iloc[:1])) == [None]
    without = nowhere.assign(machine_id=None)
    assert values(join(tmp_path, [stats], REFS, without)) == [None, None, None]


def test_keys_may_be_categories_or_numbers_of_another_width(tmp_path: Path) -> None:
    sites = machines([("n", 0, 1), ("s", 0, 2)], ("site_id", "at", "value"))
    stats = view(tmp_path, sites, entities=[SITE])
    wanted = asked([(1, 5), (2, 5)]).assign(site_id=pd.Categorical(["s", "n"]))
    result = join(tmp_path, [stats], REFS, wanted)
    assert result["value"].tolist() == [2, 1]
    assert result["site_id"].dtype == "category"
    numbers = view(tmp_path, machines([(1, 0, 10), (2, 0, 20)]))
    for kind in ("int8", "float64", "category"):
        keys = asked([(2, 5), (1, 5)]).astype({"machine_id": "int64"}).astype({"machine_id": kind})
        assert join(tmp_path, [numbers], REFS, keys)["value"].tolist() == [20, 10], kind


def test_the_only_column_of_times_is_the_time_of_the_rows(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10)]))
    wanted = asked([(1, 5)]).rename(columns={"event_timestamp": "seen"})
    assert join(tmp_path, [stats], REFS, wanted)["value"].tolist() == [10]
    with pytest.raises(ValueError, match=r"its time columns are \['seen', 'later'\]"):
        join(tmp_path, [stats], REFS, wanted.assign(later=wanted["seen"]))


def test_times_around_1900_and_2200_compare_like_any_other(tmp_path: Path) -> None:
    old, far = pd.Timestamp("1900-01-01", tz="UTC"), pd.Timestamp("2200-01-01", tz="UTC")
    rows = pd.DataFrame({"machine_id": 1, "at": [old, far], "made": [old, far], "value": [1, 2]})
    wanted = pd.DataFrame({"machine_id": 1, "event_timestamp": [old - pd.Timedelta("1us"), old, far]})
    for created in ("", "made"):
        stats = view(tmp_path, rows, created_timestamp_column=created)
        assert values(join(tmp_path, [stats], REFS, wanted)) == [None, 1, 2]


def test_the_rows_may_come_from_a_query(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10), (2, 0, 20)]))
    wanted = asked([(2, 5), (1, 7), (2, 5)]).assign(note=["x", "y", "z"])
    pq.write_table(pa.Table.from_pandas(wanted), tmp_path / "wanted.parquet")
    query = f"SELECT note, machine_id, event_timestamp FROM '{tmp_path}/wanted.parquet';"  # noqa: S608  (own path)
    lazy = job(tmp_path, [stats], REFS, query)
    result = lazy.to_df()
    assert result.columns.tolist() == ["note", "machine_id", "event_timestamp", "value"]
    assert result[["note", "value"]].to_numpy().tolist() == [["x", 20], ["y", 10], ["z", 20]]
    assert (lazy.metadata.min_event_timestamp, lazy.metadata.max_event_timestamp) == (minute(5), minute(7))
    assert sorted(lazy.metadata.keys) == ["machine_id", "note"]
    naive = "SELECT 1 AS machine_id, TIMESTAMP '2024-01-01 00:05' AS seen"
    assert join(tmp_path, [stats], REFS, naive)["value"].tolist() == [10]
    with pytest.raises(ValueError, match="entity_df is not a query that DuckDB can run"):
        join(tmp_path, [stats], REFS, "SELECT nothing FROM nowhere")
    with pytest.raises(ValueError, match="lacks the join keys"):
        join(tmp_path, [stats], REFS, "SELECT now() AS event_timestamp")


def test_without_entity_rows_every_entity_alive_at_the_end_is_one(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(2, 0, 20), (1, 0, 10), (1, 6, 11), (3, 9, 30)]), ttl=dt.timedelta(minutes=7))
    more = view(
        tmp_path,
        machines([(4, 1, 7), (1, 2, 8)], ("machine_id", "at", "other")),
        name="more",
        features=[Field(name="other", dtype=Int64)],
    )
    end = minute(8).to_pydatetime()
    lazy = job(tmp_path, [stats, more], ["stats:value", "more:other"], None, end_date=end, start_date=START)
    result = lazy.to_df()
    assert result["event_timestamp"].tolist() == [minute(8)] * 2
    assert result["machine_id"].tolist() == [1, 4]
    assert (values(result, "value"), values(result, "other")) == ([11, None], [8, 7])
    assert (lazy.metadata.min_event_timestamp, lazy.metadata.max_event_timestamp) == (START, end)


def test_without_entity_rows_a_missing_key_is_no_entity_and_keys_must_agree(tmp_path: Path) -> None:
    plain = view(tmp_path, machines([(1, 0, 5)]).drop(columns="machine_id"), name="plain", entities=[])
    end = minute(8).to_pydatetime()
    refs = ["stats:value", "plain:value"]
    nobody = machines([(1, 0, 10), (None, 0, 11)]).astype({"machine_id": "Int64"})
    stats = view(tmp_path, nobody)
    result = join(tmp_path, [stats, plain], refs, None, end_date=end, full_feature_names=True)
    assert result[["machine_id", "stats__value", "plain__value"]].to_numpy().tolist() == [[1, 10, 5]]
    alone = join(tmp_path, [plain], ["plain:value"], None, end_date=end)
    assert alone.to_dict("records") == [{"event_timestamp": minute(8), "value": 5}]
    sites = view(tmp_path, machines([("n", 0, 1)], ("site_id", "at", "value")), name="sites", entities=[SITE])
    with pytest.raises(ValueError, match="all views must have the same join keys"):
        join(tmp_path, [stats, sites], ["stats:value", "sites:value"], None, end_date=end, full_feature_names=True)


def test_feast_itself_asks_for_everything_at_the_end(tmp_path: Path) -> None:
    store = FeatureStore(config=config(tmp_path))
    store.apply([KEY, view(tmp_path, machines([(1, 0, 10), (1, 9, 11)]))])
    result = store.get_historical_features(features=REFS, end_date=minute(3).to_pydatetime()).to_df()
    assert result.to_dict("records") == [{"event_timestamp": minute(3), "machine_id": 1, "value": 10}]


BIG = 2**53


@pytest.mark.parametrize(
    ("keys", "source", "shown"),
    [
        (np.array([1, BIG], np.float64), np.array([BIG + 1, 1], np.int64), "row 1: 9007199254740992.0"),
        (np.array([1, 2**24], np.float32), np.array([2**24 + 1, 1], np.int64), "row 1: 16777216.0"),
        (np.array([BIG + 1, 1], np.int64), np.array([BIG, 1], np.float64), "row 0: 9007199254740993"),
        (pd.Categorical([float(BIG), 1.0]), np.array([BIG + 1, 1], np.int64), "row 0: 9007199254740992.0"),
    ],
)
def test_a_key_that_was_rounded_is_refused_before_it_matches_another_entity(
    keys: Any, source: Any, shown: str, tmp_path: Path
) -> None:
    stats = view(tmp_path, machines([(1, 0, 10), (2, 0, 20)]).assign(machine_id=source))
    with pytest.raises(ValueError, match=r"'machine_id'.*too large for floats.*Int64") as error:
        join(tmp_path, [stats], REFS, asked([(1, 5), (2, 5)]).assign(machine_id=keys))
    assert shown in str(error.value)


def test_large_integer_keys_match_their_own_entity_only(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(BIG, 0, 10), (BIG + 1, 0, 20)]))
    wanted = asked([(BIG + 1, 5), (None, 5), (BIG, 5), (BIG + 2, 5)])
    result = join(tmp_path, [stats], REFS, wanted)
    assert values(result) == [20, None, 10, None]
    assert values(result, "machine_id") == [BIG + 1, None, BIG, BIG + 2]
    rows = f"(VALUES ({BIG + 1}::BIGINT), (NULL)) AS keys (machine_id)"
    query = f"SELECT machine_id, TIMESTAMP '2024-01-01 00:05:00' AS event_timestamp FROM {rows}"  # noqa: S608
    result = join(tmp_path, [stats], REFS, query)
    assert values(result, "machine_id") == [BIG + 1, None]
    assert values(result) == [20, None]


def test_small_floats_are_keys_and_no_others(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10), (BIG + 1, 0, 20)]))
    wanted = asked([(1, 5), (2, 5), (3, 5)]).assign(machine_id=[1.0, 1.5, np.nan])
    assert values(join(tmp_path, [stats], REFS, wanted)) == [10, None, None]


def test_text_keys_match_in_every_character(tmp_path: Path) -> None:
    sites = machines([("007", 0, 1), ("7", 0, 2), ("12E2", 0, 3)], ("site_id", "at", "value"))
    stats = view(tmp_path, sites, entities=[SITE])
    wanted = asked([(1, 5)] * 4).assign(site_id=["7", "007", "1200", "12E2"])
    assert values(join(tmp_path, [stats], REFS, wanted)) == [2, 1, None, 3]


def test_true_is_not_the_entity_1(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10), (0, 0, 20)]))
    with pytest.raises(ValueError, match="'machine_id' is bool in entity_df and int64 in the source"):
        join(tmp_path, [stats], REFS, asked([(1, 5), (0, 5)]).assign(machine_id=[True, False]))


def test_text_times_mean_the_same_beside_any_other(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10), (1, 60, 20)]))
    texts = ["2024-01-01T03:00:00+02:00", "2024-01-01T01:00:00", "2024-01-01T01:00:00Z", "2024-01-01 00:59"]
    wanted = pd.DataFrame({"machine_id": 1, "event_timestamp": texts})
    assert values(join(tmp_path, [stats], REFS, wanted)) == [20, 20, 20, 10]


@pytest.mark.parametrize("time", [1704110400, "01/02/2024", "noon", 1.5])
def test_what_is_no_time_is_named(time: object, tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10)]))
    times = pd.Series(["2024-01-01T12:00:00", time], dtype=object)
    with pytest.raises(ValueError, match=r"row 1 of 'event_timestamp' is .*one of 1 that are no times"):
        join(tmp_path, [stats], REFS, pd.DataFrame({"machine_id": 1, "event_timestamp": times}))


NOBODY = {"site_id": [], "event_timestamp": []}
NO_TYPES = "SELECT NULL AS site_id, NULL AS event_timestamp"


@pytest.mark.parametrize(
    ("entity_df", "rows"),
    [
        (pd.DataFrame(NOBODY), 0),
        (pd.DataFrame(NOBODY, dtype=object), 0),
        (pd.DataFrame(columns=list(NOBODY)), 0),
        (pd.DataFrame({"site_id": [None], "event_timestamp": [None]}), 1),
        (pd.DataFrame({"site_id": [np.nan], "event_timestamp": [START]}), 1),
        (f"{NO_TYPES} WHERE false", 0),
        (NO_TYPES, 1),
    ],
    ids=["no rows", "objects", "names alone", "missing", "a missing number", "empty query", "nulls of a query"],
)
def test_rows_that_tell_no_types_match_nothing(entity_df: pd.DataFrame | str, rows: int, tmp_path: Path) -> None:
    stats = view(tmp_path, machines([("n", 0, 1)], ("site_id", "at", "value")), entities=[SITE])
    lazy = job(tmp_path, [stats], REFS, entity_df)
    for table in (lazy.to_arrow(), lazy.to_arrow_reader().read_all()):
        assert (table.column_names, table.column("value").to_pylist()) == ([*NOBODY, "value"], [None] * rows)
    assert lazy.metadata.keys == ["site_id"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["1", "2"], "the join key 'machine_id' is string in entity_df, as '1', and int64 in the source"),
        ([START, START], "the join key 'machine_id' is timestamp.* in entity_df, .* and int64 in the source"),
        ([[1], [2]], "the join key 'machine_id' is list<.*> in entity_df, .* and int64 in the source"),
        ([1, "2"], "entity_df has a column of values of several types: .*column machine_id"),
    ],
)
def test_keys_of_another_kind_are_named(keys: list[Any], words: str, tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10)]))
    with pytest.raises(ValueError, match=words):
        join(tmp_path, [stats], REFS, asked([(1, 5), (2, 5)]).assign(machine_id=pd.Series(keys, dtype=object)))


def test_text_times_of_a_query_mean_the_same_as_those_of_a_frame(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10), (1, 60, 20)]))
    rows = "(VALUES ('2024-01-01T03:00:00+02:00'), ('2024-01-01T00:59'), (NULL)) AS times (event_timestamp)"
    lazy = job(tmp_path, [stats], REFS, f"SELECT 1 AS machine_id, event_timestamp FROM {rows}")  # noqa: S608
    assert values(lazy.to_df()) == [20, 10, None]
    assert lazy.metadata.max_event_timestamp == minute(60)
    with pytest.raises(ValueError, match="row 0 of 'event_timestamp' is 'noon'"):
        join(tmp_path, [stats], REFS, "SELECT 1 AS machine_id, 'noon' AS event_timestamp")
