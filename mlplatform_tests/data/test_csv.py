"""CSV files: what is read, and what each kind of wrong file answers."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from mlplatform.config import DatasetConfig
from mlplatform.data.columns import FILE, LINE
from mlplatform.data.errors import DataError
from mlplatform.data.raw import ingest
from mlplatform.data.validation import Validated, validate
from mlplatform.settings import Settings
from mlplatform.testing import read_source
from mlplatform_tests.data.conftest import hourly_dataset

GOOD = """time,flow,pressure,state
2024-01-01 00:00:00,1.5,10,open
2024-01-01 01:00:00,2.5,11,open
2024-01-01 02:00:00,3.5,12,
2024-01-01 03:00:00,,13,NA
"""


def read(content: str | bytes, settings: Settings, dataset: DatasetConfig | None = None) -> Validated:
    assert settings.data_dir is not None
    path = settings.data_dir / "pump.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    dataset = dataset or hourly_dataset()
    return validate(read_source(dataset, settings), dataset)


def with_options(**options: object) -> DatasetConfig:
    return hourly_dataset(source={"uri": "pump.csv", "options": options})


def test_a_good_file_is_read(settings: Settings) -> None:
    rows = read(GOOD, settings).rows
    assert rows["flow"].tolist()[:3] == [1.5, 2.5, 3.5]
    assert rows["flow"].isna().tolist() == [False, False, False, True]


def test_only_an_empty_cell_is_a_missing_category(settings: Settings) -> None:
    assert read(GOOD, settings).rows["state"].tolist() == ["open", "open", None, "NA"]


SPACED = """time, flow, pressure, state
2024-01-01 00:00:00, 1.5, 10, open
2024-01-01 01:00:00, 2.5, 11, "shut, or so"
2024-01-01 02:00:00, , 12,
2024-01-01 03:00:00,NA, 13,  open
"""


def test_a_file_with_a_space_after_each_delimiter_is_read_as_one_without(settings: Settings) -> None:
    rows = read(SPACED, settings).rows
    assert rows["state"].tolist() == ["open", "shut, or so", None, "open"]
    assert rows["flow"].isna().tolist() == [False, False, True, True]


def test_spaces_belong_to_the_cell_that_they_are_in(settings: Settings) -> None:
    content = GOOD.replace("10,open", " 10 , open").replace("3.5,12,", "3.5,12, ").replace(",,13,NA", ", NA,13, NA")
    result = read(content, settings)
    assert result.quarantine.empty
    assert result.rows["state"].tolist() == [" open", "open", None, " NA"]
    assert result.rows["pressure"].tolist() == [10, 11, 12, 13]
    assert result.rows["flow"].isna().tolist() == [False, False, False, True]
    kept = read(content, settings, with_options(skip_initial_space=True)).rows
    assert kept["state"].tolist() == ["open", "open", None, "NA"]
    as_written = read(SPACED.replace('"shut, or so"', "shut"), settings, with_options(skip_initial_space=False)).rows
    assert as_written["state"].tolist() == [" open", " shut", None, "  open"]


def test_categories_keep_their_leading_zeros(settings: Settings) -> None:
    rows = read(GOOD.replace("open", "007"), settings).rows
    assert rows["state"][0] == "007"


def test_text_in_a_number_column_goes_to_quarantine_as_written(settings: Settings) -> None:
    result = read(GOOD.replace("2.5", "n/k 2.50"), settings)
    assert result.quarantine["row"].tolist() == [1]
    assert result.quarantine["reason"].tolist() == ["flow: not a number"]
    assert result.quarantine["flow"].tolist() == ["n/k 2.50"]
    assert result.rows["flow"].tolist()[:2] == [1.5, 3.5]


def test_a_duplicated_hour_goes_to_quarantine(settings: Settings) -> None:
    result = read(GOOD + "2024-01-01 01:00:00,9.5,11,open\n", settings)
    assert result.quarantine["reason"].tolist() == ["conflicting duplicate of row 1"]


def test_a_byte_order_mark_and_blank_lines_are_harmless(settings: Settings) -> None:
    assert len(read(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode() + b"\r\n", settings).rows) == 4


def test_other_ways_of_writing_are_options(settings: Settings) -> None:
    content = "time;flow;pressure;state\n01.02.2024 00:00;1,5;10;offen für alle\n01.02.2024 01:00;2,5;11;zu\n?;3;4;zu\n"
    dataset = with_options(delimiter=";", decimal=",", encoding="latin-1", time_format="%d.%m.%Y %H:%M")
    result = read(content.encode("latin-1"), settings, dataset)
    assert result.rows["flow"].tolist() == [1.5, 2.5]
    assert result.rows["event_timestamp"][0].isoformat() == "2024-02-01T00:00:00+00:00"
    assert result.rows["state"][0] == "offen für alle"
    assert result.quarantine["time"].tolist() == ["?"]


@pytest.mark.parametrize(
    ("time_format", "cells", "hours"),
    [
        ("%d.%m.%Y %H:%M", ["01.07.2024 12:00", "01.07.2024 13:00"], [10, 11]),
        ("%d.%m.%Y %H:%M", ["01.07.2024 12:00", "?", "01.07.2024 13:00"], [10, 11]),
        ("%d.%m.%Y %H:%M%z", ["01.07.2024 12:00+0300", "01.07.2024 10:00Z"], [9, 10]),
        ("%d.%m.%Y %H:%MZ", ["01.07.2024 12:00Z", "01.07.2024 13:00Z"], [12, 13]),
    ],
)
def test_a_format_without_a_zone_is_in_the_zone_of_the_dataset(
    time_format: str, cells: list[str], hours: list[int], settings: Settings
) -> None:
    content = "time,flow,pressure,state\n" + "".join(f"{cell},1,2,a\n" for cell in cells)
    dataset = with_options(time_format=time_format).model_copy(update={"timezone": "Europe/Berlin"})
    assert read(content, settings, dataset).rows["event_timestamp"].dt.hour.tolist() == hours


def test_one_text_does_not_change_the_numbers_of_its_column(settings: Settings) -> None:
    content = "time;flow;pressure;state\n2024-01-01 00:00;1,5;10;a\n2024-01-01 01:00;?;11;a\n2024-01-01 02:00;;12;a\n"
    result = read(content, settings, with_options(delimiter=";", decimal=","))
    assert result.rows["flow"].tolist()[0] == 1.5
    assert result.rows["flow"].isna().tolist() == [False, True]
    assert result.quarantine["flow"].tolist() == ["?"]


def test_a_missing_time_column_is_named(settings: Settings) -> None:
    with pytest.raises(DataError, match=r"pump\.csv lacks the time column 'time'; columns found: when, flow"):
        read(GOOD.replace("time,", "when,"), settings)


def test_a_wrong_delimiter_is_guessed(settings: Settings) -> None:
    with pytest.raises(DataError, match=r"separated by ';', not ',': set source\.options\.delimiter"):
        read(GOOD.replace(",", ";"), settings)


def test_two_columns_of_one_name_are_refused(settings: Settings) -> None:
    with pytest.raises(DataError, match="more than one column named flow"):
        read(GOOD.replace("pressure,state", "pressure,state,flow"), settings)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "an HTML or XML page"),
        (b"PAR1\x15\x04", "a Parquet file"),
        (gzip.compress(b"PAR1\x15\x04", mtime=0), "a Parquet file"),
        (b"\x7fELF\x02\x00\x00\x00", "binary"),
    ],
)
def test_a_file_that_is_not_csv_is_refused_by_what_it_is(content: bytes, found: str, settings: Settings) -> None:
    with pytest.raises(
        DataError, match=rf"pump\.csv is not a CSV file: it is {found}.*header line that names time, flow"
    ):
        read(content, settings)


def test_a_header_alone_is_refused(settings: Settings) -> None:
    assert read(GOOD.splitlines()[0] + "\n", settings).rows_read == 0
    with pytest.raises(DataError, match="the source has no rows; at least one is needed"):
        ingest(hourly_dataset(), settings)


def test_a_line_with_too_many_fields_is_refused_by_number(settings: Settings) -> None:
    with pytest.raises(DataError, match=r"as many fields as the header .*line 3"):
        read(GOOD.replace("2.5,", "2,5,"), settings)


def test_lines_that_are_all_too_long_are_refused_not_shifted(settings: Settings) -> None:
    header, *lines = GOOD.splitlines()
    with pytest.raises(DataError, match="as many fields as the header"):
        read("\n".join([header, *(f"{line},1" for line in lines)]), settings)


def test_the_wrong_encoding_is_refused(settings: Settings) -> None:
    with pytest.raises(DataError, match=r"cannot be decoded .* set source\.options\.encoding"):
        read(GOOD.replace("open", "für").encode("latin-1"), settings)


def test_an_unknown_encoding_is_refused(settings: Settings) -> None:
    with pytest.raises(DataError, match=r"set source\.options\.encoding"):
        read(GOOD, settings, with_options(encoding="klingon"))


def test_columns_that_are_not_asked_for_are_left_out(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "input" / "pump.csv").write_text(GOOD)
    dataset = hourly_dataset(columns={"pressure": {}})
    assert list(read_source(dataset, settings).columns) == ["time", "pressure", LINE, FILE]
