"""What message streams share: a message is one row, and one that is not does not stop the stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mlplatform.config import DatasetConfig, Frozen
from mlplatform.data.columns import require_columns, source_columns
from mlplatform.data.errors import DataError
from mlplatform.data.sources.cells import cell_frame

if TYPE_CHECKING:
    import pandas as pd

SHOWN_CHARACTERS = 200

Message = bytes | None


class StreamParams(Frozen):
    """What all streams can be told.

    `group` is the name under which progress is reported to the server; the position itself is kept with the rows.
    `batch_rows` messages are in memory, and stored, at a time. `on_lost`: what to do if the server has deleted messages
    that were not read yet: stop with an error, or go on at the earliest that is left. A server that says nothing for
    `poll_timeout_s` is taken to be away. `user_env` and `password_env` name environment variables.
    """

    group: str | None = Field(default=None, min_length=1)
    batch_rows: int = Field(default=10_000, ge=1)
    on_lost: Literal["error", "earliest"] = "error"
    poll_timeout_s: float = Field(default=10.0, gt=0)
    user_env: str | None = None
    password_env: str | None = None


def require_time_column(dataset: DatasetConfig) -> None:
    """Check that rows of a stream can be told apart by entity and time.

    Raises:
        DataError: if the dataset has no time column.
    """
    if dataset.time_column is None:
        raise DataError(
            f"dataset {dataset.name!r}: time_column is missing; a stream can repeat its messages, and without a time "
            "a repetition cannot be told from a new row"
        )


def rows_from_messages(messages: Sequence[Message], dataset: DatasetConfig, *, is_first: bool) -> pd.DataFrame:
    """Return one row per message.

    A message is a JSON object in UTF-8; a name that it lacks is a missing value, lists and objects in it become text. A
    message that is something else becomes a row whose time says so, which validation quarantines.

    Parameters:
        is_first: whether these are the first messages of all; if no object among them has a column, it is misspelt.

    Raises:
        DataError: if `is_first` and a column of the dataset is in no object.
    """
    rows = [_object(message) for message in messages]
    objects = [row for row in rows if isinstance(row, dict)]
    if is_first and objects:
        found = dict.fromkeys(name for row in objects for name in row)
        require_columns(found, dataset, f"the messages of {dataset.source.uri!r}")
    names = source_columns(dataset)
    bad = dict.fromkeys(names)
    cells = [row if isinstance(row, dict) else {**bad, str(dataset.time_column): row} for row in rows]
    return cell_frame({name: [_cell(row.get(name)) for row in cells] for name in names}, dataset)


def _object(message: Message) -> dict[str, Any] | str:
    """Return the message's object, or a text that says what it is instead and cannot be taken for a time."""
    import orjson

    if message is None:
        return "not a JSON object: no value"
    try:
        parsed = orjson.loads(message)
    except orjson.JSONDecodeError:
        parsed = None
    if isinstance(parsed, dict):
        return parsed
    return f"not a JSON object: {message[:SHOWN_CHARACTERS].decode(errors='replace')}"


def _cell(value: Any) -> Any:
    import orjson

    return orjson.dumps(value).decode() if isinstance(value, (dict, list)) else value
