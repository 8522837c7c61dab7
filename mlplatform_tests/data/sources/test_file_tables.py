"""Tables in files: cells, several files, compressed files, encodings, names, and where a bad row stands."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pydantic import ValidationError

from mlplatform.config import ConfigError, DatasetConfig
from mlplatform.data.errors import DataError
from mlplatform.data.news import source_news
from mlplatform.data.raw import ingest
from mlplatform.data.raw_table import read_raw
from mlplatform.data.sources import open_source
from mlplatform.settings import Settings
from mlplatform.testing import read_source
from mlplatform_tests.data.conftest import hourly_dataset

GOOD = "time,flow,pressure,state\n2024-01-01 00:00,1.5,10,für\n2024-01-01 01:00,2.5,11,zu\n"
COLUMNS = ["time", "flow", "pressure", "state"]


def zipped(data: bytes, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inside.csv", data)
        archive.writestr("__MACOSX/._inside.csv", b"\0\0")


def in_zstd(data: bytes, path: Path) -> None:
    with pa.output_stream(str(path), compression="zstd") as stream:
        stream.write(data)


PACKERS: dict[str, Callable[[bytes, Path], Any]] = {
    "gz": lambda data, path: path.write_bytes(gzip.compress(data)),
    "bz2": lambda data, path: path.write_bytes(bz2.compress(data)),
    "xz": lambda data, path: path.write_bytes(lzma.compress(data)),
    "zst": in_zstd,
    "zip": zipped,
}


def folder(settings: Settings) -> Path:
    assert settings.data_dir is not None
    return settings.data_dir


def dataset(uri: str | list[str], columns: dict[str, Any] | None = None, **options: Any) -> DatasetConfig:
    changes = {} if columns is None else {"columns": columns}
    return hourly_dataset(source={"uri": uri, "options": options}, **changes)


def cells(config: DatasetConfig, settings: Settings) -> list[list[Any]]:
    return read_source(config, settings)[COLUMNS].to_numpy().tolist()


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_compressed_file_is_read_like_the_file_in_it(ending: str, encoding: str, settings: Settings) -> None:
    (folder(settings) / "pump.csv").write_text(GOOD)
    PACKERS[ending](GOOD.encode(encoding), folder(settings) / f"pump.csv.{ending}")
    packed = dataset(f"pump.csv.{ending}", encoding=encoding)
    assert cells(packed, settings) == cells(dataset("pump.csv"), settings)


@pytest.mark.parametrize("ending", ["gz", "xz", "zst", "zip"])
def test_a_file_that_was_cut_off_is_refused(ending: str, settings: Settings) -> None:
    path = folder(settings) / f"pump.csv.{ending}"
    PACKERS[ending](GOOD.encode() * 100, path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=rf"pump\.csv\.{ending} .*cannot be unpacked"):
        read_source(dataset(path.name), settings)


def test_a_zip_file_of_several_files_is_refused_by_their_names(settings: Settings) -> None:
    with zipfile.ZipFile(folder(settings) / "pump.zip", "w") as archive:
        for name in ("a.csv", "b.csv"):
            archive.writestr(name, GOOD)
    with pytest.raises(DataError, match=r"holds 2 files \(a\.csv, b\.csv\); unpack it"):
        read_source(dataset("csv://pump.zip"), settings)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16", "utf-16-le"])
def test_text_is_read_in_its_encoding(encoding: str, settings: Settings) -> None:
    (folder(settings) / "pump.csv").write_bytes(GOOD.encode(encoding))
    named = encoding.removesuffix("-sig")
    assert read_source(dataset("pump.csv", encoding=named), settings)["state"].tolist() == ["für", "zu"]


@pytest.mark.parametrize(
    ("encoding", "seems"), [("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"), ("cp1252", "cp1252")]
)
def test_another_encoding_is_guessed_for_the_user(encoding: str, seems: str, settings: Settings) -> None:
    (folder(settings) / "pump.jsonl").write_bytes('{"time": "für"}\n'.encode(encoding))
    with pytest.raises(DataError, match=rf"set source\.options\.encoding .* seems to be {seems}$"):
        read_source(dataset("pump.jsonl"), settings)


def test_groups_of_thousands_are_numbers_and_other_points_are_faults(settings: Settings) -> None:
    lines = ["time;flow;pressure;state", "2024-01-01 00:00;1.234,5;10;a", "2024-01-01 01:00;12.34;-1.000;a",
             "2024-01-01 02:00;;2;a", "2024-01-01 03:00;0,5;1.000.000;a"]  # fmt: skip
    (folder(settings) / "pump.csv").write_text("\n".join(lines))
    config = dataset("pump.csv", {"flow": {}, "pressure": {}}, delimiter=";", decimal=",", thousands=".")
    report = ingest(config, settings)
    rows = read_raw(config, settings)
    assert rows["flow"].tolist()[0] == 1234.5
    assert rows["flow"].tolist()[2] == 0.5
    assert rows["pressure"].tolist() == [10, 2, 1_000_000]
    assert report.reasons == {"flow: not a number": 1}


def test_without_groups_of_thousands_a_point_is_no_decimal_comma(settings: Settings) -> None:
    (folder(settings) / "pump.csv").write_text("time;flow\n2024-01-01 00:00;1.234\n2024-01-01 01:00;1,5\n")
    config = dataset("pump.csv", {"flow": {}}, delimiter=";", decimal=",")
    assert ingest(config, settings).reasons == {"flow: not a number": 1}


@pytest.mark.parametrize("space", [" ", "\u00a0", "\u202f"])
def test_spaces_between_thousands_are_alike(space: str, settings: Settings) -> None:
    (folder(settings) / "pump.csv").write_text(f"time,flow\n2024-01-01 00:00,12{space}345.5\n")
    assert read_source(dataset("pump.csv", {"flow": {}}, thousands=" "), settings)["flow"].tolist() == [12345.5]


def test_words_for_nothing_are_missing_in_every_column(settings: Settings) -> None:
    (folder(settings) / "pump.csv").write_text("time,flow,state\n2024-01-01 00:00,-,?\n2024-01-01 01:00,1,NA\n")
    frame = read_source(dataset("pump.csv", {"flow": {}, "state": {"type": "category"}}, nulls=["-", "?"]), settings)
    assert frame["flow"].isna().tolist() == [True, False]
    assert frame["state"].isna().tolist() == [True, False]


@pytest.mark.parametrize("as_list", [True, False])
def test_several_files_are_one_table_and_a_bad_row_is_found_in_its_own(as_list: bool, settings: Settings) -> None:
    place = folder(settings)
    (place / "a.csv").write_text("time,flow\n2024-01-01 00:00,1\n\n2024-01-01 01:00,x\n")
    (place / "b.csv").write_text('note,flow,time\nmore,3,2024-01-01 02:00\n"two\nlines",9,2024-01-01 00:00\n')
    config = dataset(["a.csv", "b.csv"] if as_list else "*.csv", {"flow": {}})
    report = ingest(config, settings)
    assert read_raw(config, settings)["flow"].tolist() == [1, 3]
    assert report.quarantine_path is not None
    bad = pd.read_parquet(report.quarantine_path)
    assert bad["source_file"].tolist() == [str(place / "a.csv"), str(place / "b.csv")]
    assert bad["source_line"].tolist() == [4, 3]
    assert bad["reason"].tolist() == ["flow: not a number", "conflicting duplicate of row 0"]


def test_another_file_is_news(settings: Settings) -> None:
    config = dataset("*.csv", {"flow": {}})
    (folder(settings) / "a.csv").write_text("time,flow\n2024-01-01 00:00,1\n")
    ingest(config, settings)
    assert source_news(config, settings) is None
    (folder(settings) / "b.csv").write_text("time,flow\n2024-01-01 01:00,2\n")
    assert source_news(config, settings) is not None


def test_files_that_lack_columns_are_all_named_before_anything_is_read(settings: Settings) -> None:
    for name, header in {"a": "time,flow", "b": "time,Flow", "c": "when,flow"}.items():
        (folder(settings) / f"{name}.csv").write_text(f"{header}\n2024-01-01 00:00,1\n")
    with pytest.raises(DataError, match=r"2 of the 3 files.*lack columns.*\n.*b\.csv: 'flow'\n.*c\.csv: 'time'"):
        read_source(dataset("*.csv", {"flow": {}}), settings)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (["a.csv", "b.jsonl"], "files of several kinds: csv, jsonl"),
        (["a.parquet", "b.parquet"], "the source 'parquet' takes one URI"),
        ("a.dat", r"no source reads .*csv://a\.dat"),
    ],
)
def test_lists_that_no_source_takes_are_refused(uri: str | list[str], message: str, settings: Settings) -> None:
    with pytest.raises(ConfigError, match=message):
        read_source(dataset(uri), settings)


def test_a_pattern_that_fits_no_file_says_where_it_looked(settings: Settings) -> None:
    with pytest.raises(DataError, match=r"no file is called as '\*\.csv' says; looked for: "):
        read_source(dataset("*.csv"), settings)


def test_a_cell_of_a_workbook_is_what_it_holds(settings: Settings) -> None:
    midnight = dt.datetime(2024, 1, 1)
    rows = [
        {"time": midnight, "unit": "007", "flow": 0.1, "state": 1},
        {"time": midnight + dt.timedelta(hours=1), "unit": 7, "flow": "NA", "state": None},
        {"time": "2024-01-01 02:00", "unit": 12345678901, "flow": None, "state": 2.5},
        {"time": 45292.0, "unit": 7, "flow": 1, "state": "a"},
    ]
    with pd.ExcelWriter(folder(settings) / "pump.xlsx", engine="openpyxl") as book:
        pd.DataFrame(rows).to_excel(book, index=False, sheet_name="Daten", startrow=2)
        pd.DataFrame({"note": ["x"]}).to_excel(book, index=False, sheet_name="Legende")
    columns = {"flow": {}, "state": {"type": "category"}}
    config = hourly_dataset(
        source={"uri": "pump.xlsx", "options": {"sheet": "Daten"}}, entity_column="unit", columns=columns
    )
    report = ingest(config, settings)
    stored = read_raw(config, settings)
    assert stored["entity_id"].tolist() == ["007", "12345678901", "7"]
    assert stored["state"].tolist() == ["1", "2.5", None]
    assert stored["flow"].isna().tolist() == [False, True, True]
    assert stored["event_timestamp"].dt.hour.tolist() == [0, 2, 1]
    assert report.quarantine_path is not None
    assert pd.read_parquet(report.quarantine_path)["source_line"].tolist() == [7]
    with pytest.raises(DataError, match="2 sheets with cells: Daten, Legende; name one of them"):
        read_source(config.model_copy(update={"source": config.source.model_copy(update={"options": {}})}), settings)


def test_a_workbook_that_is_called_csv_is_named_as_what_it_is(settings: Settings) -> None:
    pd.DataFrame({"time": [1]}).to_excel(folder(settings) / "book.xlsx", index=False)
    (folder(settings) / "book.xlsx").rename(folder(settings) / "pump.csv")
    with pytest.raises(DataError, match="is a workbook or document; name it by what it is, for example xlsx://"):
        read_source(dataset("pump.csv"), settings)


def test_objects_of_json_lines_are_rows(settings: Settings) -> None:
    lines = [
        {"time": "2024-01-01T00:00:00Z", "unit": 9007199254740993, "flow": "1.5", "state": {"b": 1, "a": [2]}},
        {"unit": 7, "time": "2024-01-01T00:00:00Z", "flow": None},
    ]
    text = "\n".join([json.dumps(lines[0]), "", json.dumps(lines[1]), '{"time": "2024-'])
    (folder(settings) / "pump.jsonl").write_text(text)
    columns = {"flow": {}, "state": {"type": "category"}}
    config = hourly_dataset(source={"uri": "pump.jsonl"}, entity_column="unit", columns=columns)
    report = ingest(config, settings)
    stored = read_raw(config, settings)
    assert stored["entity_id"].tolist() == [7, 9007199254740993]
    assert stored["state"].tolist() == [None, '{"a":[2],"b":1}']
    assert report.quarantine_path is not None
    bad = pd.read_parquet(report.quarantine_path)
    assert (bad["source_line"].tolist(), bad["time"].tolist()) == ([4], ['not a JSON object: {"time": "2024-'])


def test_names_can_be_exchanged(settings: Settings) -> None:
    (folder(settings) / "pump.csv").write_text("time,flow,pressure\n2024-01-01 00:00,1,2\n")
    source = {"uri": "pump.csv", "rename": {"flow": "pressure", "pressure": "flow"}}
    frame = read_source(hourly_dataset(source=source, columns={"flow": {}, "pressure": {}}), settings)
    assert frame[["flow", "pressure"]].to_numpy().tolist() == [[2, 1]]


def test_a_column_that_is_not_read_does_not_hide_one_that_is_called_so(settings: Settings) -> None:
    (folder(settings) / "pump.csv").write_text("time,flow,old\n2024-01-01 00:00,1,2\n")
    config = hourly_dataset(source={"uri": "pump.csv", "rename": {"old": "flow"}}, columns={"flow": {}})
    assert read_source(config, settings)["flow"].tolist() == [2]
    assert open_source(config).read(config, settings).columns.is_unique


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({"a": "flow", "b": "flow"}, "more than one column the name 'flow'"),
        ({"a": "flaw"}, "gives columns the names 'flaw', which the dataset does not have"),
        ({"flow": "pressure"}, "calls the source's 'flow' by another name"),
    ],
)
def test_names_that_cannot_be_given_are_refused(rename: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        hourly_dataset(source={"uri": "pump.csv", "rename": rename})


def test_a_source_that_says_nothing_new_is_stored_as_before() -> None:
    assert hourly_dataset().model_dump()["source"] == {
        "uri": "pump.csv", "sha256": None, "download_url": None, "options": {},
    }  # fmt: skip
