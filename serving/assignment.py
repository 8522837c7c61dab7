"""Which entities a challenger works on: those whose hash falls into its share.

The hash is BLAKE2b of the experiment's name and the entity's id as text, so every process of every server, before and
after a restart, and every protocol assign an entity alike. A row of a table without an id stands for itself: its hash
is that of the values that the model reads, numbers as the model sees them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from mlplatform.config import ENTITY, TIMESTAMP
from serving.backend import EntityId, Served

Rows = Sequence[dict[str, Any]]

_WHOLE = 2**64


def place_of(experiment: str, key: bytes) -> float:
    """Return where in [0, 1) a key falls; a share of `s` has the keys below `s`."""
    digest = blake2b(key, digest_size=8, key=blake2b(experiment.encode(), digest_size=32).digest()).digest()
    return int.from_bytes(digest, "big") / _WHOLE


def entity_key(entity: EntityId) -> bytes:
    """Return the key of an entity: protocols that only have text for ids assign as those that have numbers."""
    return b"e" + str(entity).encode("utf-8", "surrogatepass")


def row_key(row: Mapping[str, Any], columns: Sequence[str]) -> bytes:
    """Return the key of a row of a table by the columns that the model reads."""
    return b"r" + b"\0".join(_bytes_of(row.get(name)) for name in columns)


def keys_of_rows(rows: Rows, served: Served) -> list[bytes] | None:
    """Return for every row the key of what it belongs to; `None` if rows do not say it alike.

    Such a request is refused, or answered, as a whole: in parts its findings would be others.
    """
    names = served.names
    if not all(row.keys() == rows[0].keys() for row in rows):
        shared = [name for name in (ENTITY, TIMESTAMP, names.entity, names.time) if name is not None]
        if any((name in row) != (name in rows[0]) for name in shared for row in rows):
            return None
    key = entity_name(rows[0], served)
    contract = served.pair.contract
    if key is None:
        return None if contract.task == "forecast" else [row_key(row, contract.columns) for row in rows]
    kinds = {type(row[key]) for row in rows}
    return [entity_key(row[key]) for row in rows] if kinds in ({int}, {str}) else None


def entity_name(row: Mapping[str, Any], served: Served) -> str | None:
    """Return what a row calls its entity; `None` if it names none."""
    return next((name for name in (ENTITY, served.names.entity) if name is not None and name in row), None)


def _bytes_of(value: Any) -> bytes:
    if type(value) in (int, float):
        try:
            return struct.pack("<f", value)
        except OverflowError:
            return b"beyond"
    return repr(value).encode("utf-8", "surrogatepass")
