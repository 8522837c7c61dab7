"""Entities that their source removes: every source can say it, rows stay, and a later row brings the entity back."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest
from redis import Redis as RedisClient

from mlplatform.config import ENTITY, DatasetConfig
from mlplatform.data import ingest, read_raw
from mlplatform.data.errors import DataError
from mlplatform.data.parsing import parse_marks
from mlplatform.data.raw_table import open_raw
from mlplatform.data.removals import gone_at
from mlplatform.data.validation import Basis, validate
from mlplatform.settings import Settings
from mlplatform_tests.data.conftest import hourly_dataset
from mlplatform_tests.data.servers import Database, Kafka

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
YES = (
    *(True, 1, 1.0, Decimal(1), 1735689600, b"\x01", "true", "T", " Yes ", "1", "2025-12-31", "2026-01-01T01:00+01:00"),
    *(dt.datetime(2025, 1, 1), dt.date(2026, 1, 1), pd.Timestamp("2025-01-01", tz="UTC")),
)
NO = (
    *(
        False,
        0,
        0.0,
        b"\x00",
        float("nan"),
        pd.NaT,
        "false",
        "N",
        "",
        "0",
        "infinity",
        "9999-12-31",
        "2026-01-01T00:00:01Z",
    ),
    *(dt.datetime(2026, 1, 2), dt.date(9999, 12, 31)),
)


def fleet(uri: str = "fleet.csv", removed: str | None = "removed", **options: Any) -> DatasetConfig:
    return hourly_dataset(
        source={"uri": uri, "options": options}, entity_column="line", removed_column=removed, columns={"flow": {}}
    )


def frame(*rows: tuple[Any, int | None, Any]) -> pd.DataFrame:
    """Rows of (entity, hour, mark); without an hour there is nothing but the mark."""
    return pd.DataFrame(
        {
            "time": pd.Series(
                [None if hour is None else f"2024-01-01T{hour:02}:00" for _, hour, _ in rows], dtype=object
            ),
            "line": pd.Series([line for line, _, _ in rows], dtype=object),
            "removed": pd.Series([mark for _, _, mark in rows], dtype=object),
            "flow": [None if hour is None else float(hour) for _, hour, _ in rows],
        }
    )


def gone(dataset: DatasetConfig, settings: Settings) -> list[Any]:
    table = open_raw(dataset, settings)
    assert table is not None
    return sorted(gone_at(table.removals)[ENTITY].tolist())


def stored(dataset: DatasetConfig, settings: Settings) -> list[tuple[Any, int]]:
    rows = read_raw(dataset, settings)
    return list(zip(rows[ENTITY].tolist(), rows["event_timestamp"].dt.hour.tolist(), strict=True))


class TestMarks:
    @pytest.mark.parametrize("cell", YES)
    def test_yes(self, cell: Any) -> None:
        marks, unclear = parse_marks(pd.Series([cell, None], dtype=object), NOW)
        assert (marks.tolist(), unclear.tolist()) == ([True, False], [False, False])

    @pytest.mark.parametrize("cell", NO)
    def test_no(self, cell: Any) -> None:
        marks, unclear = parse_marks(pd.Series([cell, True], dtype=object), NOW)
        assert (marks.tolist(), unclear.tolist()) == ([False, True], [False, False])

    @pytest.mark.parametrize("cell", ["gone", "2026-13-01", [True], {"yes": 1}])
    def test_neither(self, cell: Any) -> None:
        marks, unclear = parse_marks(pd.Series([cell], dtype=object), NOW)
        assert (marks.tolist(), unclear.tolist()) == ([False], [True])

    @pytest.mark.parametrize("dtype", ["bool", "boolean", "Int8", "float32", "category"])
    def test_of_every_type_of_column(self, dtype: str) -> None:
        assert parse_marks(pd.Series([True, False]).astype(dtype), NOW)[0].tolist() == [True, False]

    def test_a_column_of_times(self) -> None:
        times = pd.Series(pd.to_datetime(["2025-01-01", None, "2027-01-01"]))
        assert parse_marks(times, NOW)[0].tolist() == [True, False, False]


class TestValidation:
    def test_a_mark_needs_no_more_than_the_entity_and_becomes_no_row(self) -> None:
        result = validate(frame(("a", 0, None), ("b", 0, None), ("b", None, True)), fleet())
        assert result.rows[ENTITY].tolist() == ["a", "b"]
        assert (result.removed.tolist(), result.marks, result.rows_read) == (["b"], 1, 3)
        assert result.quarantine.empty

    def test_the_last_word_on_an_entity_holds(self) -> None:
        rows = frame(("a", None, 1), ("a", 0, 0), ("b", 0, 0), ("b", None, 1), ("c", 1, 1), ("b", 5, "x"))
        result = validate(rows, fleet())
        assert result.removed.tolist() == ["b", "c"]
        assert result.quarantine["reason"].tolist() == ["removed: neither yes nor no, nor a time"]
        assert result.quarantine["row"].tolist() == [5]

    def test_row_numbers_are_those_of_the_source(self) -> None:
        rows = frame(("a", None, 1), ("b", 0, 0), ("b", None, 1), (None, None, 1), ("b", None, 0), ("c", 2, 0))
        result = validate(rows, fleet(), first_row=10)
        assert result.numbers.tolist() == [11, 15]
        assert dict(zip(result.quarantine["row"], result.quarantine["reason"], strict=True)) == {
            13: "line: missing",
            14: "time: missing",
        }
        assert len(result.examples) == 2

    def test_ids_of_marks_are_held_to_those_of_rows(self) -> None:
        result = validate(frame((7, 0, 0), ("7", None, 1), ("007", None, 1), ("x", None, 1)), fleet(), Basis())
        assert result.removed.tolist() == [7]
        assert result.quarantine["line"].tolist() == ["007", "x"]


class TestConfiguration:
    def test_it_needs_entities(self) -> None:
        with pytest.raises(ValueError, match="removed_column needs entity_column"):
            hourly_dataset(removed_column="gone")

    @pytest.mark.parametrize("name", ["line", "flow", "time"])
    def test_it_is_a_column_of_its_own(self, name: str) -> None:
        with pytest.raises(ValueError, match="removed_column"):
            fleet(removed=name)

    def test_a_source_that_lacks_it_is_refused(self, settings: Settings) -> None:
        assert settings.data_dir is not None
        frame(("a", 0, 0)).drop(columns="removed").to_csv(settings.data_dir / "fleet.csv", index=False)
        with pytest.raises(DataError, match="lacks the removed column 'removed'"):
            ingest(fleet(), settings)


class TestIngest:
    def write(self, settings: Settings, *rows: tuple[Any, int | None, Any]) -> None:
        assert settings.data_dir is not None
        frame(*rows).to_csv(settings.data_dir / "fleet.csv", index=False)

    def test_a_file_read_whole_keeps_rows_and_notes_who_left(self, settings: Settings) -> None:
        self.write(settings, ("a", 0, None), ("b", 0, None), ("b", None, "true"), ("unheard-of", None, "true"))
        report = ingest(fleet(), settings)
        assert stored(fleet(), settings) == [("a", 0), ("b", 0)]
        assert gone(fleet(), settings) == ["b"]
        assert (report.rows, report.entities, report.removed, report.quarantined) == (2, 2, 1, 0)

    def test_when_it_left_is_kept_over_ingests_and_when_it_came_back(self, settings: Settings) -> None:
        self.write(settings, ("a", 0, 0), ("b", 0, 0), ("b", None, 1))
        ingest(fleet(), settings)
        (since,) = open_raw(fleet(), settings).removals["since"]  # type: ignore[union-attr]
        ingest(fleet(), settings)
        assert open_raw(fleet(), settings).removals["since"].tolist() == [since]  # type: ignore[union-attr]
        self.write(settings, ("a", 0, 0), ("b", 0, 0))
        ingest(fleet(), settings)
        removals = open_raw(fleet(), settings).removals  # type: ignore[union-attr]
        assert removals["since"].tolist() == [since]
        assert gone(fleet(), settings) == []
        between = since + (removals["until"].item() - since) / 2
        assert gone_at(removals, between)[ENTITY].tolist() == ["b"]
        assert gone_at(removals, since - pd.Timedelta("1s")).empty

    def test_nothing_but_marks_is_no_source(self, settings: Settings) -> None:
        self.write(settings, ("a", None, 1))
        with pytest.raises(DataError, match="one row at least must be good"):
            ingest(fleet(), settings)


def reading(line: Any, hour: int, **others: Any) -> bytes:
    return json.dumps({"time": f"2024-01-01T{hour:02}:00:00Z", "line": line, "flow": hour} | others).encode()


class TestKafka:
    @pytest.mark.parametrize(
        ("line", "key"),
        [
            ("b", b"b"),
            ("b", b'"b"'),
            ("b", b'{"line": "b"}'),
            ("b", b'{"schema": {}, "payload": {"line": "b"}}'),
            (7, b"7"),
            (7, b'{"line":7}'),
            ("007", b"007"),
        ],
    )
    def test_a_key_without_a_value_removes_its_entity(
        self, line: Any, key: bytes, kafka: Kafka, settings: Settings
    ) -> None:
        topic = f"lines-{uuid.uuid4().hex}"
        dataset = fleet(f"kafka://{kafka.address}/{topic}", removed=None)
        other = "a" if isinstance(line, str) else 3
        kafka.send(topic, [reading(other, 0), reading(line, 0)], partition=0)
        ingest(dataset, settings)
        kafka.send(topic, [None], partition=0, key=key)
        report = ingest(dataset, settings)
        assert (report.removed, report.quarantined, report.rows) == (1, 0, 2)
        assert gone(dataset, settings) == [line]
        kafka.send(topic, [reading(line, 1)], partition=0)
        assert ingest(dataset, settings).removed == 0
        assert stored(dataset, settings) == sorted([(other, 0), (line, 0), (line, 1)])

    def test_what_names_no_entity_is_named_itself(self, kafka: Kafka, settings: Settings) -> None:
        topic = f"lines-{uuid.uuid4().hex}"
        dataset = fleet(f"kafka://{kafka.address}/{topic}", removed=None)
        kafka.send(topic, [reading(7, 0)], partition=0)
        for key in (b"\xff\xfe", b"a-uuid", b'{"machine": 7}', None):
            kafka.send(topic, [None], partition=0, key=key)
        report = ingest(dataset, settings)
        assert (report.removed, report.rows, report.quarantined) == (0, 1, 4)
        assert sorted(reason.split(": ")[0] for reason in report.reasons) == ["line", "line", "line", "time"]

    def test_a_dataset_of_one_series_has_nobody_to_remove(self, kafka: Kafka, settings: Settings) -> None:
        topic = f"lines-{uuid.uuid4().hex}"
        dataset = hourly_dataset(source={"uri": f"kafka://{kafka.address}/{topic}"}, columns={"flow": {}})
        kafka.send(topic, [reading("a", 0), None], partition=0, key=b"a")
        assert (ingest(dataset, settings).removed, open_raw(dataset, settings).state.quarantined) == (0, 1)  # type: ignore[union-attr]

    def test_a_message_can_say_it_as_well(self, kafka: Kafka, settings: Settings) -> None:
        topic = f"lines-{uuid.uuid4().hex}"
        dataset = fleet(f"kafka://{kafka.address}/{topic}")
        kafka.send(
            topic, [reading("a", 0), reading("b", 0, removed=False), b'{"line":"b","removed":true}'], partition=0
        )
        kafka.send(topic, [None], partition=0, key=b"a")
        ingest(dataset, settings)
        assert gone(dataset, settings) == ["a", "b"]


@pytest.mark.parametrize("server", ["postgres", "mysql"])
@pytest.mark.parametrize(("kind", "yes"), [("BOOLEAN", "TRUE"), ("TIME", "'2024-02-01 00:00:00'")])
def test_increments_of_a_database_with_soft_deletion(
    server: str, kind: str, yes: str, settings: Settings, request: pytest.FixtureRequest
) -> None:
    database: Database = request.getfixturevalue(server)
    # MySQL's own TIMESTAMP depends on the zone of whoever writes.
    time = "DATETIME" if server == "mysql" else "TIMESTAMP"
    removed = kind.replace("TIME", time)
    table = f"CREATE TABLE lines_ (time {time}, line VARCHAR(20), flow REAL, removed {removed}, changed INT)"
    rows = "('2024-01-01 00:00:00', 'a', 0, NULL, 1), ('2024-01-01 00:00:00', 'b', 0, NULL, 2)"
    database.run("DROP TABLE IF EXISTS lines_", table, f"INSERT INTO lines_ VALUES {rows}")  # noqa: S608
    dataset = fleet(database.uri, table="lines_", watermark_column="changed", **database.options)
    assert ingest(dataset, settings).removed == 0
    database.run(f"UPDATE lines_ SET removed = {yes}, changed = 3 WHERE line = 'b'")  # noqa: S608
    assert ingest(dataset, settings).removed == 1
    assert stored(dataset, settings) == [("a", 0), ("b", 0)]
    assert ingest(dataset, settings).removed == 1
    database.run("INSERT INTO lines_ VALUES ('2024-01-01 01:00:00', 'b', 1, NULL, 4)")
    assert ingest(dataset, settings).removed == 0


@pytest.mark.parametrize("field", ["value", None])
def test_entries_of_a_redis_stream(field: str | None, redis: str, settings: Settings) -> None:
    client = RedisClient(*redis.split(":"))
    stream = uuid.uuid4().hex
    dataset = fleet(f"redis-stream://{redis}/0/{stream}", field=field)

    def add(message: dict[str, Any]) -> None:
        client.xadd(stream, message if field is None else {field: json.dumps(message)})

    for line in ("a", "b"):
        add({"time": "2024-01-01T00:00:00Z", "line": line, "flow": 1})
    ingest(dataset, settings)
    add({"line": "b", "removed": "true"})
    assert ingest(dataset, settings).removed == 1
    assert stored(dataset, settings) == [("a", 0), ("b", 0)]


def test_a_new_parquet_file_of_a_folder(settings: Settings) -> None:
    assert settings.data_dir is not None
    folder = settings.data_dir / "lines"
    folder.mkdir()
    dataset = fleet("parquet://lines")

    def write(name: str, *rows: tuple[Any, int | None, Any]) -> None:
        frame(*rows).astype({"removed": bool, "flow": float}).to_parquet(folder / name)

    write("0.parquet", ("a", 0, False), ("b", 0, False))
    ingest(dataset, settings)
    write("1.parquet", ("b", None, True))
    assert ingest(dataset, settings).removed == 1
    assert stored(dataset, settings) == [("a", 0), ("b", 0)]


def test_callers_hear_of_rows_and_then_of_removals(settings: Settings) -> None:
    assert settings.data_dir is not None
    frame(("a", 0, 0), ("b", 0, 0), ("b", None, 1)).to_csv(settings.data_dir / "fleet.csv", index=False)
    heard: list[Any] = []
    ingest(
        fleet(),
        settings,
        on_rows=lambda rows: heard.append(rows[ENTITY].tolist()),
        on_removed=lambda ids: heard.append(("gone", ids.tolist())),
    )
    assert heard == [["a", "b"], ("gone", ["b"])]
