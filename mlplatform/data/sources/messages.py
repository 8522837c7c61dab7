"""What message streams share: a message is one row, and one that is not does not stop the stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mlplatform.config import DatasetConfig, Frozen
from mlplatform.data.columns import mark_column, require_columns, source_columns
from mlplatform.data.errors import DataError
from mlplatform.data.sources.cells import cell_frame

if TYPE_CHECKING:
    import pandas as pd

SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class Tombstone:
    """A message with a key and no value: whatever has the key is gone."""

    key: bytes


Message = bytes | Tombstone | None


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

    A message is a JSON object in UTF-8; a name that it lacks is a missing value. A tombstone becomes a row that marks
    the entity of its key as removed, where the dataset has entities. A message that is something else becomes a row
    whose time says so, which validation quarantines.

    Parameters:
        is_first: whether these are the first messages of all; if no object among them has a column, it is misspelt.

    Raises:
        DataError: if `is_first` and a column of the dataset is in no object.
    """
    rows = [_object(message, dataset) for message in messages]
    objects = [row for row in rows if isinstance(row, dict)]
    tombstones = any(isinstance(message, Tombstone) for message in messages)
    if is_first and len(objects) > sum(isinstance(message, Tombstone) for message in messages):
        # Only the messages that mark something have a mark.
        found = dict.fromkeys([*(name for row in objects for name in row), mark_column(dataset)])
        require_columns(found, dataset, f"the messages of {dataset.source.uri!r}")
    names = dict.fromkeys([*source_columns(dataset), *([mark_column(dataset)] if tombstones else [])])
    bad = dict.fromkeys(names)
    cells = [row if isinstance(row, dict) else {**bad, str(dataset.time_column): row} for row in rows]
    return cell_frame({name: [row.get(name) for row in cells] for name in names}, dataset)


def _object(message: Message, dataset: DatasetConfig) -> dict[str, Any] | str:
    """Return the message's object, or a text that says what it is instead and cannot be taken for a time."""
    if isinstance(message, Tombstone) and dataset.entity_column is not None:
        return {dataset.entity_column: _key(message.key, dataset.entity_column), mark_column(dataset): True}
    if message is None or isinstance(message, Tombstone):
        return "not a JSON object: no value"
    return json_object(message)


def json_object(text: bytes | str) -> dict[str, Any] | str:
    """Return the JSON object that a text is, or a text that says what it is instead and cannot be taken for a time."""
    import orjson

    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        parsed = None
    if isinstance(parsed, dict):
        return parsed
    shown = text[:SHOWN_CHARACTERS]
    return f"not a JSON object: {shown.decode(errors='replace') if isinstance(shown, bytes) else shown}"


def _key(key: bytes, entity_column: str) -> Any:
    """Return the id in a message's key: the key itself, or what a JSON object has under the entity column's name.

    Bytes that are no text stay bytes, which validation takes for no id.
    """
    import orjson

    try:
        parsed = orjson.loads(key)
    except orjson.JSONDecodeError:
        parsed = None
    if isinstance(parsed, dict) and "payload" in parsed:
        parsed = parsed["payload"]  # Kafka Connect puts the schema beside it
    if isinstance(parsed, dict):
        return parsed.get(entity_column)
    if isinstance(parsed, str):
        return parsed
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key
