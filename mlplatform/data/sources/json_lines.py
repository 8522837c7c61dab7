"""JSON lines: a text file with one JSON object per line, which is one row; a name that it lacks is a missing cell."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.config import ColumnConfig, DatasetConfig, SourceConfig
from mlplatform.data.columns import LINE, source_columns
from mlplatform.data.errors import DataError
from mlplatform.data.sources.cells import cell_frame
from mlplatform.data.sources.file_tables import FileTable, text_frame
from mlplatform.data.sources.messages import json_object
from mlplatform.data.sources.text_files import guess_encoding, open_text
from mlplatform.data.sources.written_cells import WrittenParams, read_written
from mlplatform.plugins import SOURCES

if TYPE_CHECKING:
    import pandas as pd

# Rows that are in memory at a time, and of which the first tell what names there are.
BATCH_ROWS = 131_072


class JsonLinesParams(WrittenParams):
    """How the file, and cells of text in it, are written."""

    encoding: str = "utf-8"


@SOURCES.register("jsonl")
@SOURCES.register("ndjson")
class JsonLinesSource(FileTable[JsonLinesParams]):
    """A file of JSON objects, or several."""

    Params = JsonLinesParams
    kind = "JSON lines file"

    @classmethod
    def example(cls, folder: Path) -> DatasetConfig:
        """Three hours of a pump."""
        lines = [f'{{"time": "2024-01-01T0{hour}:00Z", "flow": {hour}.5, "state": "open"}}' for hour in range(3)]
        (folder / "pump.jsonl").write_text("\n".join(lines))
        return DatasetConfig(
            name="pump",
            source=SourceConfig(uri="pump.jsonl"),
            time_column="time",
            frequency="1h",
            columns={"flow": ColumnConfig(), "state": ColumnConfig(type="category")},
        )

    @classmethod
    def guess(cls, path: Path) -> dict[str, Any]:
        """Return the encoding; see `FileTable.guess`."""
        return {"encoding": guess_encoding(path, str(path))}

    def cells(self, path: Path, rows: int) -> pd.DataFrame:
        """Return the first rows as text; see `FileTable.cells`."""
        objects = [row for _, row in itertools.islice(self._rows(path, str(path)), rows) if isinstance(row, dict)]
        if not objects:
            raise DataError(f"{path} is not a JSON lines file: it has no line that is a JSON object")
        return text_frame(_names(objects), objects)

    def columns(self, path: Path, dataset: DatasetConfig) -> Sequence[str]:
        """Return the names in the objects of the first lines; see `FileTable.columns`."""
        rows = itertools.islice(self._rows(path, f"dataset {dataset.name!r}"), BATCH_ROWS)
        return _names([row for _, row in rows if isinstance(row, dict)])

    def frames(self, path: Path, dataset: DatasetConfig) -> Iterator[pd.DataFrame]:
        """Yield the objects of one stretch of lines after the other; see `FileTable.frames`.

        A line that is no object becomes a row whose time says so, which validation quarantines.
        """
        rows = self._rows(path, f"dataset {dataset.name!r}")
        while batch := list(itertools.islice(rows, BATCH_ROWS)):
            objects = [_row(row, line, path, dataset) for line, row in batch]
            frame = cell_frame({name: [row.get(name) for row in objects] for name in source_columns(dataset)}, dataset)
            yield read_written(frame, dataset, self.params).assign(**{LINE: [line for line, _ in batch]})

    def _rows(self, path: Path, subject: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
        """Yield every line that is not empty, by its number from 1, as an object or a text that says what it is."""
        with open_text(path, self.params.encoding, subject) as text:
            for number, line in enumerate(text, start=1):
                if line.strip():
                    yield number, json_object(line)


def _names(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _row(row: dict[str, Any] | str, line: int, path: Path, dataset: DatasetConfig) -> dict[str, Any]:
    if isinstance(row, dict):
        return row
    if dataset.time_column is None:
        raise DataError(f"dataset {dataset.name!r}: line {line} of {path} is {row}; correct or remove it")
    return {dataset.time_column: row}
