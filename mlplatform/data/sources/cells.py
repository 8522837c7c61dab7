"""Frames of cells as a source delivered them. Left alone, pandas makes floats of whole numbers beside a missing one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlplatform.config import DatasetConfig

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class OutOfRange(str):
    """A time or date that Python cannot hold, such as `infinity`, in the words of the server."""

    __slots__ = ()


@dataclass(frozen=True)
class NoNumber:
    """Text that stands for no number in a file of its way of writing, though elsewhere it could: `1.5` beside `1,5`."""

    text: str

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return repr(self.text)


NULLABLE_INTEGERS = tuple(f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))


def cell_frame(columns: Mapping[str, Sequence[Any]], dataset: DatasetConfig) -> pd.DataFrame:
    """Return columns of Python objects as a frame; times, entities and categories stay the objects that they are."""
    import pandas as pd

    numbers = set(dataset.float_columns)
    return pd.DataFrame(
        {name: pd.Series(_plain(cells), dtype=None if name in numbers else object) for name, cells in columns.items()}
    )


def _plain(cells: Sequence[Any]) -> list[Any]:
    """Return cells whose text is of Python's own class, because pandas takes no other."""
    return [str(cell) if type(cell) is OutOfRange else cell for cell in cells]


def arrow_frame(table: pa.Table) -> pd.DataFrame:
    """Return an Arrow table as a frame in which integers are integers, whether or not some are missing."""
    import pandas as pd
    import pyarrow as pa

    exact = {pa.type_for_alias(name.lower()): pd.api.types.pandas_dtype(name) for name in NULLABLE_INTEGERS}
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True, types_mapper=exact.get)
    return frame
