"""What a client calls entity and time in its rows: as the platform does, or as the dataset's own columns are called.

Rows are read under the platform's names; findings about them are told under those that the client used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from operator import contains
from typing import Any

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from serving.errors import ErrorDetail, ServingError, invalid, reworded

Rows = Sequence[dict[str, Any]]

# The fields of a request that hold rows.
ROWS, FUTURE = "rows", "future"


@dataclass(frozen=True)
class KeyNames:
    """The names of a dataset's own entity and time columns; `None` where it has none."""

    entity: str | None = None
    time: str | None = None

    @classmethod
    def of(cls, dataset: DatasetConfig) -> KeyNames:
        """Return the names that a dataset has."""
        return cls(dataset.entity_column, dataset.time_column)

    @contextmanager
    def read(self, rows: Rows, field: str) -> Iterator[Rows]:
        """Yield the rows under the platform's names; errors about them are raised in the client's words.

        Parameters:
            field: where in the request the rows stand, `rows` or `future`.

        Raises:
            ServingError: 422 if a row has a key under both names.
        """
        try:
            yield self._canonical(rows, field)
        except ServingError as error:
            if not error.details:
                raise
            raise reworded(error, [self._told(detail, rows, field) for detail in error.details]) from error

    def entity_of(self, row: Mapping[str, Any]) -> Any:
        """Return the id of a row's entity, under whichever name it has one; `None` without one."""
        return row.get(ENTITY, None if self.entity is None else row.get(self.entity))

    @cached_property
    def _platform(self) -> Mapping[str, str]:
        """The platform's name by the dataset's own."""
        pairs = ((self.entity, ENTITY), (self.time, TIMESTAMP))
        return {own: name for own, name in pairs if own is not None and own not in (ENTITY, TIMESTAMP)}

    def _canonical(self, rows: Rows, field: str) -> Rows:
        names = self._platform
        # A question per row and name takes a fifth of the time of going over all keys.
        if not any(any(map(contains, rows, repeat(own))) for own in names):
            return rows
        twice = [
            ErrorDetail(
                field=f"{field}[{number}].{own}",
                row=number,
                column=own,
                found=f"both {own} and {name}",
                expected="one of them",
                action="leave one out",
            )
            for number, row in enumerate(rows)
            for own, name in names.items()
            if own in row and name in row
        ]
        if twice:
            raise invalid("invalid_rows", twice)
        return [{names.get(name, name): value for name, value in row.items()} for row in rows]

    def _told(self, detail: ErrorDetail, rows: Rows, field: str) -> ErrorDetail:
        """Return a finding about canonical rows as it should be told about the client's."""
        expected = detail.expected
        for own, name in self._platform.items():
            if any(own in row for row in rows):
                expected = re.sub(rf"\b{name}\b", own, expected)
        if detail.row is None or detail.column is None:
            place = field if detail.field in (ROWS, FUTURE) else detail.field
            return detail.model_copy(update={"field": place, "expected": expected})
        column = self._used(detail.column, rows[detail.row], rows)
        place = f"{field}[{detail.row}].{column}"
        return detail.model_copy(update={"field": place, "column": column, "expected": expected})

    def _used(self, name: str, row: Mapping[str, Any], rows: Rows) -> str:
        """Return what the client calls a column: in this row, else in any."""
        own = next((own for own, platform in self._platform.items() if platform == name), None)
        if own is None or name in row:
            return name
        return own if own in row or any(own in other for other in rows) else name
