"""Entity ids and categories: what a source delivers is what is stored, to the last digit and zero."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from mlplatform.config import ENTITY, DatasetConfig
from mlplatform.data import ingest, read_raw
from mlplatform.data.errors import DataError
from mlplatform.data.parsing import parse_categories, parse_entities
from mlplatform.data.sources import open_source
from mlplatform.data.sources.messages import rows_from_messages
from mlplatform.data.validation import Validated, validate
from mlplatform.settings import Settings
from mlplatform.testing import read_source
from mlplatform_tests.data.conftest import hourly_dataset
from mlplatform_tests.data.servers import Database

BIG = 1787654321098765437
LETTER = st.characters(codec="utf-8", exclude_characters="\0")


def fleet(
    uri: str = "fleet.csv", entity_type: str = "auto", max_bad_fraction: float = 0.5, **options: Any
) -> DatasetConfig:
    return hourly_dataset(
        source={"uri": uri, "options": options},
        entity_column="line",
        entity_type=entity_type,
        max_bad_fraction=max_bad_fraction,
        columns={"flow": {}, "kind": {"type": "category"}},
    )


def fleet_rows(ids: list[Any], kinds: list[Any] | None = None) -> dict[str, list[Any]]:
    times = [f"2024-01-01T{hour:02d}:00:00Z" for hour in range(len(ids))]
    return {"time": times, "line": ids, "flow": [float(row) for row in range(len(ids))], "kind": kinds or ids}


def frame(ids: list[Any], kinds: list[Any] | None = None) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in fleet_rows(ids, kinds).items()})


def from_csv(ids: list[Any], settings: Settings, folder: Path) -> Validated:
    rows = fleet_rows(["" if value is None else value for value in ids])
    pd.DataFrame(rows, dtype=object).to_csv(folder / "fleet.csv", index=False)
    return validate(read_source(fleet(), settings), fleet())


def from_parquet(ids: list[Any], settings: Settings, folder: Path) -> Validated:
    rows: dict[str, Any] = fleet_rows(ids)
    if 2**64 - 1 in ids:
        rows |= {"line": np.array(ids, np.uint64), "kind": np.array(ids, np.uint64)}
    pq.write_table(pa.table(rows), folder / "fleet.parquet")
    return validate(read_source(fleet("fleet.parquet"), settings), fleet("fleet.parquet"))


def from_messages(ids: list[Any], settings: Settings, folder: Path) -> Validated:  # noqa: ARG001
    dataset = fleet("kafka://localhost/lines")
    rows = fleet_rows(ids)
    messages = [orjson.dumps({name: cells[row] for name, cells in rows.items()}) for row in range(len(ids))]
    return validate(rows_from_messages(messages, dataset, is_first=True), dataset)


@pytest.mark.parametrize("deliver", [from_csv, from_parquet, from_messages])
@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        (["7", "12", "-3"], [7, 12, -3]),
        (["007", "7", "12"], ["007", "7", "12"]),
        (["12E2", "1200"], ["12E2", "1200"]),
        (["1.0", "1"], ["1.0", "1"]),
        (["b", "a"], ["b", "a"]),
        ([" a", "a", "a ", "b c"], [" a", "a", "a ", "b c"]),
        ([" 7", "7"], [" 7", "7"]),
        ([BIG, BIG + 2, None], [BIG, BIG + 2]),
        ([2**63 - 1, -(2**63)], [2**63 - 1, -(2**63)]),
        ([2**64 - 1, 2**64 - 2], [str(2**64 - 1), str(2**64 - 2)]),
    ],
)
def test_ids_and_categories_come_out_of_every_source_as_they_went_in(
    deliver: Callable[..., Validated], ids: list[Any], kept: list[Any], settings: Settings
) -> None:
    assert settings.data_dir is not None
    result = deliver(ids, settings, settings.data_dir)
    assert result.rows.sort_values("flow")[ENTITY].tolist() == kept
    assert result.rows.sort_values("flow")["kind"].tolist() == [str(value) for value in ids if value is not None]
    assert result.quarantine["reason"].tolist() == ["line: missing"] * ids.count(None)


@pytest.mark.parametrize("server", ["postgres", "mysql"])
@pytest.mark.parametrize(
    ("kind", "ids", "kept"),
    [
        ("VARCHAR(20)", ["001", "1", "12E2"], ["001", "1", "12E2"]),
        ("BIGINT", [BIG, BIG + 2, None], [BIG, BIG + 2]),
        ("NUMERIC(20, 0)", [BIG, BIG + 2, None], [BIG, BIG + 2]),
    ],
)
def test_ids_and_categories_come_out_of_a_database_as_they_went_in(
    server: str, kind: str, ids: list[Any], kept: list[Any], settings: Settings, request: pytest.FixtureRequest
) -> None:
    database: Database = request.getfixturevalue(server)
    table = f"CREATE TABLE fleet (time TIMESTAMP, line {kind}, flow REAL, kind {kind})"
    literals = ["NULL" if value is None else repr(value) for value in ids]
    rows = [f"('2024-01-01 0{hour}:00:00', {value}, {hour}, {value})" for hour, value in enumerate(literals)]
    fill = f"INSERT INTO fleet VALUES {', '.join(rows)}"  # noqa: S608  (the test's own literals)
    database.run("DROP TABLE IF EXISTS fleet", table, fill)
    dataset = fleet(database.uri, table="fleet", **database.options)
    result = validate(open_source(dataset).read(dataset, settings), dataset)
    assert result.rows.sort_values("flow")[ENTITY].tolist() == kept
    assert result.rows.sort_values("flow")["kind"].tolist() == [str(value) for value in kept]
    assert result.quarantine["reason"].tolist() == ["line: missing"] * ids.count(None)


@pytest.mark.parametrize(
    ("entity_type", "cell", "kept", "reason"),
    [
        ("auto", "x", None, "not a whole number, as the other entities are"),
        ("auto", True, None, "not a whole number, as the other entities are"),
        ("auto", 2.0**53, None, "not known exactly"),
        ("auto", np.float32(2**24), None, "not known exactly"),
        ("auto", 9.0, 9, None),
        ("auto", Decimal(9), 9, None),
        ("integer", "007", None, "in other words"),
        ("integer", "12E2", None, "in other words"),
        ("integer", str(2**63), None, "not a whole number"),
        ("string", "007", "007", None),
        ("string", 7.0, "7", None),
        ("string", 7.5, "7.5", None),
        ("string", 1e16, None, "not known exactly"),
        ("string", "a\0b", None, "not known exactly"),
        ("string", "", None, "line: missing"),
        ("string", BIG, str(BIG), None),
    ],
)
def test_what_cannot_be_kept_exactly_is_quarantined(entity_type: str, cell: Any, kept: Any, reason: str | None) -> None:
    dataset = fleet(entity_type=entity_type)
    result = validate(frame([1, 2, cell], ["a", "b", "c"]), dataset)
    if reason is None:
        assert result.rows.sort_values("flow")[ENTITY].tolist()[-1] == kept
    else:
        assert reason in result.quarantine["reason"][0]
        assert result.quarantine["line"][0] == str(cell)


@pytest.mark.parametrize("cell", [2.0**53, 1e300, "a\0", np.float32(2**25)])
def test_a_category_that_was_rounded_or_cut_is_quarantined(cell: Any) -> None:
    result = validate(frame([1, 1, 1], ["a", cell, "b"]), fleet())
    assert result.rows["kind"].tolist() == ["a", "b"]
    assert "kind: not known exactly" in result.quarantine["reason"][0]


CELL = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 20),
    st.sampled_from(["007", "7", "12E2", " 7", "+7", "1.0", "-0", "0", "", "a", "NaN", "inf", "٣", "9" * 5000]),
    st.text(LETTER, max_size=4),
    st.floats(),
)


def written(cell: Any) -> str:
    is_whole = isinstance(cell, float) and cell.is_integer()
    return str(int(cell)) if is_whole else str(cell)


@settings(max_examples=100, deadline=None)
@given(st.lists(CELL, min_size=1, max_size=8), st.sampled_from(["auto", "string", "integer"]))
def test_an_id_is_kept_in_every_character_or_not_at_all(cells: list[Any], entity_type: Any) -> None:
    values = pd.Series(cells, dtype=object)
    ids = parse_entities(values, 0.05, entity_type=entity_type)
    bad = ids.inexact | ids.respelt | ids.other | values.isna().to_numpy()
    for value, cell, is_bad in zip(ids.values.tolist(), cells, bad, strict=True):
        assert is_bad or str(value) == written(cell)
    if entity_type == "string":
        assert not (ids.respelt | ids.other).any()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    written_ids=st.lists(
        st.text("0127E.-+a ", min_size=1, max_size=3).filter(str.strip), min_size=1, max_size=8, unique=True
    )
)
def test_every_id_of_a_file_is_stored_as_written_or_quarantined(written_ids: list[str], tmp_path: Path) -> None:
    home = tempfile.mkdtemp(dir=tmp_path)
    own = Settings.from_env({"MLPLATFORM_HOME": home, "MLPLATFORM_DATA_DIR": home})
    write_fleet(written_ids, own)
    dataset = fleet(max_bad_fraction=0.99)
    report = ingest(dataset, own)
    found = [str(value) for value in read_raw(dataset, own)[ENTITY]]
    if report.quarantine_path is not None:
        found += pd.read_parquet(report.quarantine_path)["line"].tolist()
    assert sorted(found) == sorted(written_ids)


@settings(max_examples=100, deadline=None)
@given(st.lists(CELL, min_size=1, max_size=8))
def test_a_category_is_kept_in_every_character_and_means_the_same_alone(cells: list[Any]) -> None:
    texts, bad = parse_categories(pd.Series(cells, dtype=object))
    for text, cell, is_bad in zip(texts, cells, bad, strict=True):
        (alone,), _ = parse_categories(pd.Series([cell], dtype=object))
        assert text == alone
        assert is_bad or text is None or text == written(cell)


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([BIG, None], dtype="Int64"),
        pd.Series(pd.Categorical([BIG, None])),
        pd.Series([BIG, None], dtype=object),
    ],
)
def test_pandas_columns_with_a_missing_cell_lose_no_digit(values: pd.Series) -> None:
    assert parse_entities(values, 0.05).values[0] == BIG
    assert parse_categories(values)[0].tolist() == [str(BIG), None]


def write_fleet(ids: list[Any], settings: Settings) -> None:
    assert settings.data_dir is not None
    pd.DataFrame(fleet_rows(ids)).to_csv(settings.data_dir / "fleet.csv", index=False)


def test_ids_that_became_text_are_refused_by_row_and_the_last_table_stays(settings: Settings) -> None:
    write_fleet([1, 2], settings)
    ingest(fleet(), settings)
    write_fleet(["007", "2", "A"], settings)
    with pytest.raises(DataError) as error:
        ingest(fleet(max_bad_fraction=0.1), settings)
    assert "row 0: line: a whole number in other words than the entities are written in" in str(error.value)
    assert "row 2: line: not a whole number, as the other entities are" in str(error.value)
    assert "entity_type" in str(error.value)
    assert read_raw(fleet(), settings)[ENTITY].tolist() == [1, 2]


def test_ids_that_became_numbers_stay_the_text_that_they_were(settings: Settings) -> None:
    write_fleet(["a", "b"], settings)
    ingest(fleet(), settings)
    write_fleet([7, 8], settings)
    ingest(fleet(), settings)
    assert read_raw(fleet(), settings)[ENTITY].tolist() == ["7", "8"]


def test_the_configuration_can_change_the_type_of_ids(settings: Settings) -> None:
    write_fleet([7, 8], settings)
    ingest(fleet(), settings)
    write_fleet(["007", "8"], settings)
    ingest(fleet(entity_type="string"), settings)
    assert read_raw(fleet(entity_type="string"), settings)[ENTITY].tolist() == ["007", "8"]


@pytest.mark.parametrize("ids", [["7", "8", "007", "9"], ["007", "9", "7", "8"]])
def test_the_batch_in_which_a_file_first_has_text_does_not_matter(ids: list[str], settings: Settings) -> None:
    assert settings.data_dir is not None
    pq.write_table(pa.table(fleet_rows(ids)), settings.data_dir / "fleet.parquet")
    dataset = fleet("fleet.parquet", batch_rows=2)
    report = ingest(dataset, settings)
    assert (report.rows, report.quarantined) == (4, 0)
    assert read_raw(dataset, settings)[ENTITY].tolist() == sorted(ids)


def test_an_increment_keeps_to_the_configured_type_and_another_one_needs_a_full_read(settings: Settings) -> None:
    assert settings.data_dir is not None
    (settings.data_dir / "lines").mkdir()
    pq.write_table(pa.table(fleet_rows(["7", "8"])), settings.data_dir / "lines" / "a.parquet")
    uri = "lines/*.parquet"
    ingest(fleet(uri), settings)
    assert read_raw(fleet(uri), settings)[ENTITY].tolist() == [7, 8]
    text = fleet(uri, entity_type="string")
    with pytest.raises(DataError, match=r"its entity_type changed since its rows were stored.*full: true"):
        ingest(text, settings)
    ingest(text, settings, full=True)
    assert read_raw(text, settings)[ENTITY].tolist() == ["7", "8"]
    with pytest.raises(DataError, match="its entity_type changed"):
        ingest(fleet(uri), settings)


WRITTEN = '{"at":"2024-01-01 00:00:00+00:00","of":"1.50"}'


class TestStructures:
    """Lists and objects mean the same whatever Python class a source has for them."""

    @pytest.mark.parametrize(
        ("cell", "text"),
        [
            ({"b": 1, "a": [1, None, True]}, '{"a":[1,null,true],"b":1}'),
            ({"a": [np.int64(1), None, np.bool_(True)], "b": 1}, '{"a":[1,null,true],"b":1}'),
            (["x", "ü"], '["x","ü"]'),
            (("x", "ü"), '["x","ü"]'),
            (np.array(["x", "ü"], dtype=object), '["x","ü"]'),
            (np.array([1.5, 2.0]), "[1.5,2.0]"),
            ([2**63 - 1, 2**70], f"[{2**63 - 1},{2**70}]"),
            ([], "[]"),
            ({"at": pd.Timestamp("2024-01-01", tz="UTC"), "of": Decimal("1.50")}, WRITTEN),
            ({"a": float("nan")}, None),
            ({"a": 2.0**60}, None),
            ({"a": b"x"}, None),
            ({"a": "x\0y"}, None),
            ({1: "a"}, None),
            ({"x"}, None),
        ],
        ids=repr,
    )
    def test_they_become_one_text_or_are_quarantined(self, cell: Any, text: str | None) -> None:
        result = validate(frame([cell, "plain"]), fleet())
        assert set(result.rows[ENTITY]) == set(result.rows["kind"]) == {"plain", *([] if text is None else [text])}
        if text is None:
            assert "line: not known exactly" in result.quarantine["reason"].item()

    @pytest.mark.parametrize("column", ["time", "flow"])
    @pytest.mark.parametrize("cell", [[1.0], [], {"a": 1}, np.array([1.0, 2.0]), {"x"}], ids=repr)
    def test_elsewhere_they_are_no_value(self, column: str, cell: Any) -> None:
        rows = frame(["a", "b"])
        rows[column] = pd.Series([rows[column][0], cell], dtype=object)
        result = validate(rows, fleet())
        assert result.rows[ENTITY].tolist() == ["a"]
        assert len(result.quarantine) == 1

    def test_parquet_a_message_and_a_database_say_the_same(self, settings: Settings, postgres: Database) -> None:
        assert settings.data_dir is not None
        value = {"b": [1, 2], "a": "x"}
        rows = fleet_rows(["1", "2"], [value, value])
        messages = [orjson.dumps({name: cells[row] for name, cells in rows.items()}) for row in range(2)]
        pq.write_table(pa.table(rows), settings.data_dir / "fleet.parquet")
        table = "CREATE TABLE structures (time TIMESTAMP, line TEXT, flow REAL, kind JSONB)"
        fill = """INSERT INTO structures VALUES ('2024-01-01', '1', 0, '{"b": [1, 2], "a": "x"}')"""
        postgres.run("DROP TABLE IF EXISTS structures", table, fill)
        stored = fleet(postgres.uri, table="structures", **postgres.options)
        sources = [
            (read_source(fleet("fleet.parquet"), settings), fleet("fleet.parquet")),
            (rows_from_messages(messages, fleet("kafka://localhost/lines"), is_first=True), fleet()),
            (read_source(stored, settings), stored),
        ]
        for cells, dataset in sources:
            assert set(validate(cells, dataset).rows["kind"]) == {'{"a":"x","b":[1,2]}'}
