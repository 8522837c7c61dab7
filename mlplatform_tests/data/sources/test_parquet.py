"""Folders of Parquet files: what is new, what is complete, and what comes from a path."""

from __future__ import annotations

import datetime as dt
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlplatform.config import ConfigError, DatasetConfig, check_source
from mlplatform.data.errors import DataError
from mlplatform.data.sources import IncrementalSource, open_source
from mlplatform.data.validation import validate
from mlplatform.settings import Settings
from mlplatform.testing import read_source
from mlplatform_tests.data.conftest import hourly_dataset, hourly_frame


@pytest.fixture
def folder(settings: Settings) -> Path:
    assert settings.data_dir is not None
    folder = settings.data_dir / "readings"
    folder.mkdir()
    return folder


def write(path: Path, start: str, rows: int = 3, age_s: int = 0, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    hourly_frame(rows, start).assign(**columns).to_parquet(path)
    changed = path.stat().st_mtime_ns - age_s * 10**9
    os.utime(path, ns=(changed, changed))


def dataset_of(uri: str = "readings/*.parquet", **options: Any) -> DatasetConfig:
    return hourly_dataset(source={"uri": uri, "options": options})


def source_of(dataset: DatasetConfig) -> IncrementalSource[Any]:
    source = open_source(dataset)
    assert isinstance(source, IncrementalSource)
    return source


def days(frames: list[pd.DataFrame]) -> list[str]:
    return [frame["time"].iloc[0][:10] for frame in frames]


@pytest.mark.parametrize("uri", ["readings/*.parquet", "parquet://readings", "readings/**/*.parquet"])
def test_a_folder_or_a_glob_is_read_in_the_order_of_change(uri: str, folder: Path, settings: Settings) -> None:
    write(folder / "a.parquet", "2024-01-03")
    write(folder / "b.parquet", "2024-01-01", age_s=10)
    for other in (".hidden.parquet", "_temporary/c.parquet", "_metadata.parquet", "notes.txt"):
        write(folder / other, "2025-01-01")
    dataset = dataset_of(uri)
    source = source_of(dataset)
    assert source.is_incremental(dataset, settings)
    assert days(list(source.read_batches(dataset, settings))) == ["2024-01-01", "2024-01-03"]
    assert len(read_source(dataset, settings)) == 6


def test_a_folder_with_a_suffix_and_an_absolute_path(tmp_path: Path, settings: Settings) -> None:
    write(tmp_path / "input" / "pump.parquet" / "a.parquet", "2024-01-01")
    for uri in ("pump.parquet/", "pump.parquet", str(tmp_path / "input" / "pump.parquet" / "*.parquet")):
        dataset = dataset_of(uri)
        assert source_of(dataset).is_incremental(dataset, settings)
        assert len(read_source(dataset, settings)) == 3


def test_new_and_changed_files_are_read_and_no_others(folder: Path, settings: Settings) -> None:
    dataset = dataset_of()
    source = source_of(dataset)
    write(folder / "a.parquet", "2024-01-01", age_s=30)
    write(folder / "b.parquet", "2024-01-02", age_s=20)
    first = list(source.read_since(dataset, settings, None))
    assert list(source.read_since(dataset, settings, first[-1].position)) == []
    write(folder / "a.parquet", "2024-02-01", rows=4)
    write(folder / "c.parquet", "2024-01-03", age_s=10)
    (folder / "b.parquet").unlink()
    second = list(source.read_since(dataset, settings, first[-1].position))
    assert days([batch.frame for batch in second]) == ["2024-01-03", "2024-02-01"]
    assert set(second[-1].position["files"]) == {"a.parquet", "c.parquet"}


def test_a_file_counts_as_read_with_its_last_batch_only(folder: Path, settings: Settings) -> None:
    write(folder / "a.parquet", "2024-01-01", rows=3, age_s=10)
    write(folder / "b.parquet", "2024-01-02", rows=5)
    dataset = dataset_of(batch_rows=2)
    batches = list(source_of(dataset).read_since(dataset, settings, None))
    assert [len(batch.frame) for batch in batches] == [2, 1, 2, 2, 1]
    assert [sorted(batch.position["files"]) for batch in batches] == [
        [],
        ["a.parquet"],
        ["a.parquet"],
        ["a.parquet"],
        ["a.parquet", "b.parquet"],
    ]
    rest = list(source_of(dataset).read_since(dataset, settings, batches[2].position))
    assert sum(len(batch.frame) for batch in rest) == 5


def test_a_single_file_is_streamed_by_row_group(tmp_path: Path, settings: Settings) -> None:
    table = pa.Table.from_pandas(hourly_frame(10))
    pq.write_table(table, tmp_path / "input" / "pump.parquet", row_group_size=4)
    dataset = dataset_of("pump.parquet", batch_rows=4)
    source = source_of(dataset)
    assert not source.is_incremental(dataset, settings)
    assert [len(frame) for frame in source.read_batches(dataset, settings)] == [4, 4, 2]


def test_only_one_row_group_is_in_memory(tmp_path: Path, settings: Settings) -> None:
    frame = pd.DataFrame(
        {"time": [f"{row:0100d}" for row in range(200_000)], "flow": 1.0, "pressure": 1.0, "state": "x"}
    )
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "input" / "pump.parquet", row_group_size=10_000)
    before = pa.total_allocated_bytes()
    largest = 0
    dataset = dataset_of("pump.parquet", batch_rows=10_000)
    for _ in open_source(dataset).read_batches(dataset, settings):
        largest = max(largest, pa.total_allocated_bytes() - before)
    assert largest < 10_000_000


def test_a_half_written_file_is_named_before_any_other_is_read(folder: Path, settings: Settings) -> None:
    write(folder / "a.parquet", "2024-01-01", age_s=10)
    write(folder / "b.parquet", "2024-01-02")
    whole = (folder / "b.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(whole[: len(whole) // 2])
    dataset = dataset_of()
    batches = source_of(dataset).read_since(dataset, settings, None)
    with pytest.raises(
        DataError, match=r"b\.parquet \(\d+ bytes\) is not a readable Parquet file.*wait until its writer"
    ):
        next(batches)


def test_a_file_that_is_written_again_while_it_is_read_is_refused(folder: Path, settings: Settings) -> None:
    write(folder / "a.parquet", "2024-01-01", rows=6, age_s=10)
    dataset = dataset_of(batch_rows=2)
    batches = source_of(dataset).read_since(dataset, settings, None)
    next(batches)
    os.utime(folder / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet was written again while it was read"):
        list(batches)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"flow": "a lot"}, r"column 'flow' is double in .*a\.parquet, but (large_)?string in .*b\.parquet"),
        ({"time": pd.Timestamp("2024-01-01")}, r"column 'time' is (large_)?string in .*a\.parquet, but timestamp"),
    ],
)
def test_files_of_unequal_schemas_are_named(
    columns: dict[str, Any], message: str, folder: Path, settings: Settings
) -> None:
    write(folder / "a.parquet", "2024-01-01", age_s=10)
    write(folder / "b.parquet", "2024-01-02", **columns)
    with pytest.raises(DataError, match=message):
        read_source(dataset_of(), settings)


def test_a_column_that_one_file_lacks_is_named_with_the_file(folder: Path, settings: Settings) -> None:
    write(folder / "a.parquet", "2024-01-01", age_s=10)
    hourly_frame().drop(columns="state").to_parquet(folder / "b.parquet")
    with pytest.raises(DataError, match=r"Parquet file .*b\.parquet lacks the data column 'state'"):
        read_source(dataset_of(), settings)


def test_widths_units_and_missing_values_make_no_unequal_schema(folder: Path, settings: Settings) -> None:
    write(folder / "a.parquet", "2024-01-01", age_s=10)
    write(folder / "b.parquet", "2024-01-02", flow=7, state=None)
    assert read_source(dataset_of(), settings)["flow"].tolist() == [0, 1, 2, 7, 7, 7]


def test_hive_partitions_are_columns(folder: Path, settings: Settings) -> None:
    frame = hourly_frame(4).drop(columns="state")
    for number, (state, station) in enumerate([("open", 3), ("half%20open", 3), ("__HIVE_DEFAULT_PARTITION__", 12)]):
        path = folder / f"state={state}" / f"station={station}" / f"{number}.parquet"
        path.parent.mkdir(parents=True)
        frame.to_parquet(path)
    dataset = hourly_dataset(source={"uri": "parquet://readings"}, entity_column="station")
    read = read_source(dataset, settings)
    assert sorted(set(zip(read["state"].fillna("?"), read["station"], strict=True))) == [
        ("?", "12"),
        ("half open", "3"),
        ("open", "3"),
    ]


def test_a_folder_without_files_says_where_it_looked(folder: Path, settings: Settings) -> None:
    with pytest.raises(DataError, match=rf"no file that ends with \.parquet; looked in: {folder}.*MLPLATFORM_DATA_DIR"):
        read_source(dataset_of(), settings)


def test_a_position_of_another_source_is_refused(folder: Path, settings: Settings) -> None:
    write(folder / "a.parquet", "2024-01-01")
    dataset = dataset_of()
    with pytest.raises(DataError, match="does not list files; read the dataset in full"):
        list(source_of(dataset).read_since(dataset, settings, {"watermark": 1}))


def test_a_digest_is_for_one_file(folder: Path, settings: Settings) -> None:
    write(folder / "a.parquet", "2024-01-01")
    dataset = hourly_dataset(source={"uri": "readings/*.parquet", "sha256": "0" * 64})
    with pytest.raises(DataError, match=r"source\.sha256 is the digest of one file"):
        read_source(dataset, settings)


def test_the_fingerprint_follows_the_files(folder: Path, settings: Settings) -> None:
    write(folder / "a.parquet", "2024-01-01")
    dataset = dataset_of()
    seen = [source_of(dataset).fingerprint(dataset, settings) for _ in range(2)]
    assert seen[0] == seen[1]
    write(folder / "a.parquet", "2024-01-01", age_s=5)
    seen.append(source_of(dataset).fingerprint(dataset, settings))
    write(folder / "b.parquet", "2024-01-01")
    seen.append(source_of(dataset).fingerprint(dataset, settings))
    assert len(set(seen)) == 3


@pytest.fixture
def bucket() -> Iterator[str]:
    system = fsspec.filesystem("memory")
    name = f"/bucket-{uuid.uuid4().hex}"
    yield name
    if system.exists(name):
        system.rm(name, recursive=True)


@pytest.mark.parametrize("pattern", ["/x/*.parquet", "/**/*.parquet"])
def test_remote_files_are_read_as_local_ones(pattern: str, bucket: str, settings: Settings) -> None:
    system = fsspec.filesystem("memory")
    dataset = dataset_of(f"memory:/{bucket}{pattern}")
    source = source_of(dataset)
    with system.open(f"{bucket}/x/a.parquet", "wb") as file:
        hourly_frame(3, "2024-01-01").to_parquet(file)
    first = list(source.read_since(dataset, settings, None))
    assert source.is_incremental(dataset, settings)
    assert list(source.read_since(dataset, settings, first[-1].position)) == []
    seen = source.fingerprint(dataset, settings)
    with system.open(f"{bucket}/x/b.parquet", "wb") as file:
        hourly_frame(3, "2024-01-02").to_parquet(file)
    assert source.fingerprint(dataset, settings) != seen
    second = list(source.read_since(dataset, settings, first[-1].position))
    assert days([batch.frame for batch in second]) == ["2024-01-02"]
    one = dataset_of(f"memory:/{bucket}/x/b.parquet")
    assert not source_of(one).is_incremental(one, settings)
    assert len(read_source(one, settings)) == 3


def test_a_remote_file_that_is_damaged_is_named(bucket: str, settings: Settings) -> None:
    with fsspec.filesystem("memory").open(f"{bucket}/a.parquet", "wb") as file:
        file.write(b"not Parquet at all")
    with pytest.raises(DataError, match=r"a\.parquet \(18 bytes\) is not a readable Parquet file"):
        read_source(dataset_of(f"memory:/{bucket}/*.parquet"), settings)


def test_a_protocol_that_is_not_installed_says_so(settings: Settings) -> None:
    with pytest.raises(DataError, match="fsspec's package for this protocol is installed"):
        read_source(dataset_of("gs://bucket/*.parquet"), settings)


def test_a_remote_csv_is_refused(settings: Settings) -> None:
    with pytest.raises(DataError, match="only Parquet is read from elsewhere"):
        read_source(hourly_dataset(source={"uri": "s3://bucket/pump.csv"}), settings)


def test_a_secret_among_the_storage_options_is_refused() -> None:
    dataset = dataset_of("s3://bucket/*.parquet", storage_options={"secret": "hunter2"})
    with pytest.raises(ConfigError, match="secret may be a secret") as caught:
        check_source(dataset)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("int96", [False, True], ids=["int64", "int96"])
def test_times_beyond_nanoseconds_do_not_wrap_around(int96: bool, folder: Path, settings: Settings) -> None:
    times = [dt.datetime(2024, 1, 1, 0, 0, 0, 1), dt.datetime(9999, 12, 31), dt.datetime(1, 1, 1)]
    table = pa.table({**hourly_frame(3), "time": pa.array(times, pa.timestamp("us"))})
    pq.write_table(table, folder / "a.parquet", use_deprecated_int96_timestamps=int96)
    dataset = hourly_dataset(source={"uri": "readings/a.parquet"})
    checked = validate(open_source(dataset).read(dataset, settings), dataset)
    assert checked.rows["event_timestamp"].tolist() == [pd.Timestamp(times[0], tz="UTC")]
    assert checked.reasons == {"time: not an ISO 8601 time of the years 1678 to 2261": 2}


def test_binary_categories_are_not_taken_for_text(folder: Path, settings: Settings) -> None:
    for number, column in enumerate([pa.array([b"open", None]), pa.array([b"open", None]).dictionary_encode()]):
        pq.write_table(pa.table({**hourly_frame(2), "state": column}), folder / f"{number}.parquet")
        dataset = hourly_dataset(source={"uri": f"readings/{number}.parquet"})
        checked = validate(open_source(dataset).read(dataset, settings), dataset)
        assert checked.rows["state"].tolist() == [None]
        assert ["binary data" in reason for reason in checked.reasons] == [True]


def test_whole_numbers_inside_of_lists_and_objects_stay_whole(folder: Path, settings: Settings) -> None:
    """Of such columns pandas makes floats as soon as a part of one is missing."""
    large = 1787654321098765437
    cells = {
        "object": [{"a": large}, {"a": 2}, None],
        "list": [[large, None], [], None],
        "map": [[("b", large), ("a", None)], [], None],
        "nested": [{"x": [{"y": large, "z": 0.5}, None]}, {"x": None}, None],
    }
    types = {"map": pa.map_(pa.string(), pa.int64())}
    expected = {
        "object": [f'{{"a":{large}}}', '{"a":2}', None],
        "list": [f"[{large},null]", "[]", None],
        "map": [f'[["b",{large}],["a",null]]', "[]", None],
        "nested": [f'{{"x":[{{"y":{large},"z":0.5}},null]}}', '{"x":null}', None],
    }
    for name, values in cells.items():
        columns = pa.Table.from_pandas(hourly_frame(3)).drop_columns("state")
        columns = columns.append_column("state", pa.array(values, types.get(name)))
        pq.write_table(columns, folder / "a.parquet")
        (frame,) = source_of(dataset_of()).read_batches(dataset_of(), settings)
        assert validate(frame, dataset_of()).rows["state"].tolist() == expected[name]


def test_a_column_that_is_there_twice_is_named(folder: Path, settings: Settings) -> None:
    columns = pa.Table.from_pandas(hourly_frame(3))
    pq.write_table(columns.append_column("flow", columns.column("flow")), folder / "a.parquet")
    with pytest.raises(DataError, match="has more than one column named flow; rename one there"):
        list(source_of(dataset_of()).read_batches(dataset_of(), settings))
