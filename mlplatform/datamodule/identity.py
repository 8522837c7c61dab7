"""Which row is which: the identity of a row, digests of it, and the stable numbers that decide where a row belongs.

A row number says nothing about a row: it changes when a file is exported in another order, or when a row is inserted or
deleted above. What is decided here depends on the row alone, so it comes out the same in any company.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.datamodule.panel import to_utc_ns

if TYPE_CHECKING:
    import pandas as pd

Digests = npt.NDArray[np.uint64]

# Of any digest: 64 bits, with which two of a million different rows meet once in thirty million tables.
DIGEST_BYTES = 8
MISSING = 0


@dataclass(frozen=True)
class RowIdentity:
    """What tells the rows of a table apart: an entity, or else their content.

    Rows of equal identity are one row: copies are never on two sides of a border.

    Attributes:
        entity_column: the source's column that names the entity, of which a table has one row; None for content.
        columns: column -> type (`float`, `category`), whose values are the content; empty for entities.
        with_time: whether the time stamp is part of the content.
    """

    entity_column: str | None = None
    columns: tuple[tuple[str, str], ...] = ()
    with_time: bool = False

    @classmethod
    def of(cls, dataset: DatasetConfig) -> RowIdentity:
        """Return what tells the rows of a dataset apart."""
        if dataset.entity_column is not None:
            return cls(entity_column=dataset.entity_column)
        types = ((name, column.type) for name, column in dataset.columns.items())
        return cls(columns=tuple(sorted(types)), with_time=dataset.time_column is not None)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> RowIdentity:
        """Read what `to_json` returned."""
        columns = tuple((str(name), str(kind)) for name, kind in document["columns"])
        return cls(document["entity_column"], columns, document["with_time"])

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "entity_column": self.entity_column,
            "columns": [list(each) for each in self.columns],
            "with_time": self.with_time,
        }

    def within(self, columns: Iterable[str]) -> RowIdentity:
        """Return the identity as far as the named columns go: rows that differ elsewhere only become one."""
        present = set(columns)
        kept = tuple(each for each in self.columns if each[0] in present)
        return RowIdentity(self.entity_column, kept, self.with_time)

    def but_for_one(self) -> Iterator[RowIdentity]:
        """Yield the identities of rows that may differ in one column, or in their time."""
        for name, _ in self.columns:
            yield replace(self, columns=tuple(each for each in self.columns if each[0] != name))
        if self.with_time:
            yield replace(self, with_time=False)

    def digests(self, frame: pd.DataFrame) -> Digests:
        """Return the digest of every row, of shape (rows,).

        Numbers count as float32, the precision that models read; categories and entities as text, so that 7, 7.0 and
        "7" are one.

        Raises:
            KeyError: if the rows lack a column of the identity.
        """
        if self.entity_column is not None:
            return entity_digests(frame[ENTITY])
        parts = [
            entity_digests(frame[name]) if kind == "category" else _number_bits(frame[name])
            for name, kind in self.columns
        ]
        if self.with_time:
            parts.append(to_utc_ns(frame[TIMESTAMP]).astype(np.int64).view(np.uint64))
        return _digests_of(np.stack(parts, axis=1) if parts else np.zeros((len(frame), 0), np.uint64))


def series_digests(frame: pd.DataFrame) -> Digests:
    """Return the digest of every row of time series, of shape (rows,): of its entity and time, whatever it holds."""
    # Times of one entity stay apart, and those of two meet as seldom as digests do.
    times = to_utc_ns(frame[TIMESTAMP]).astype(np.int64).view(np.uint64)
    return entity_digests(frame[ENTITY]) + times


def stable_numbers(digests: Digests, seed: int, purpose: str) -> npt.NDArray[np.float64]:
    """Return a number from [0, 1) for every digest, uniform over rows and decided by digest, seed and purpose alone."""
    distinct, positions = np.unique(digests, return_inverse=True)
    key = f"{purpose}:{seed}".encode()
    salted = (hashlib.blake2b(each.tobytes(), digest_size=DIGEST_BYTES, key=key).digest() for each in distinct)
    numbers = np.frombuffer(b"".join(salted), dtype="<u8")
    # The 53 bits that a float64 holds.
    return np.asarray((numbers >> np.uint64(11)) / 2.0**53)[positions]


def deal(digests: Digests, folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the fold of every row, of shape (rows,): folds have equally many digests, and a digest is in one only.

    The rows are ordered by their stable numbers and cut into stretches, so neither their order nor copies of rows
    change a fold, and a row that comes or goes moves at most one other across each of the borders.
    """
    distinct, positions = np.unique(digests, return_inverse=True)
    ranks = np.empty(len(distinct), dtype=np.int64)
    ranks[np.argsort(stable_numbers(distinct, seed, "folds"), kind="stable")] = np.arange(len(distinct))
    return np.asarray(ranks * folds // max(len(distinct), 1), dtype=np.int64)[positions]


def text_digests(values: Sequence[str] | npt.NDArray[Any]) -> Digests:
    """Return the digest of every text, of shape (values,)."""
    distinct, positions = np.unique(np.asarray(values, dtype=str), return_inverse=True)
    hashes = [hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest() for text in distinct.tolist()]
    return np.frombuffer(b"".join(hashes), dtype="<u8").astype(np.uint64)[positions]


def entity_digests(values: pd.Series[Any]) -> Digests:
    """Return the digest of every entity or category as text, of shape (rows,); `MISSING` for null and empty text."""
    import pandas as pd

    codes, distinct = pd.factorize(values)
    texts = [_as_text(value) for value in distinct]
    known = np.full(len(texts) + 1, MISSING, dtype=np.uint64)
    known[:-1] = np.where([text == "" for text in texts], MISSING, text_digests(texts)) if texts else 0
    return known[codes]


def _as_text(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _number_bits(values: pd.Series[Any]) -> Digests:
    """Return the bits of float32, one pattern for zero and one for missing."""
    import pandas as pd

    numbers = pd.to_numeric(values).to_numpy(dtype=np.float32, na_value=np.nan) + np.float32(0)
    bits = numbers.view(np.uint32).astype(np.uint64)
    bits[np.isnan(numbers)] = np.uint64(0x7FC00000)
    return bits


def _digests_of(rows: npt.NDArray[np.uint64]) -> Digests:
    """Return the digest of every row of numbers of shape (rows, columns)."""
    width = rows.shape[1] * rows.itemsize
    content = np.ascontiguousarray(rows.astype("<u8")).tobytes()
    hashes = (
        hashlib.blake2b(content[start : start + width], digest_size=DIGEST_BYTES).digest()
        for start in range(0, len(rows) * width, max(width, 1))
    )
    if not width:
        return np.zeros(len(rows), dtype=np.uint64)
    return np.frombuffer(b"".join(hashes), dtype="<u8").astype(np.uint64)
