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
    """Return an Arrow table as a frame in which integers are integers, whether or not some are missing.

    So are those inside of lists and objects, of which pandas makes floats as soon as one beside them is missing.
    """
    import pandas as pd
    import pyarrow as pa

    exact = {pa.type_for_alias(name.lower()): pd.api.types.pandas_dtype(name) for name in NULLABLE_INTEGERS}
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True, types_mapper=exact.get)
    for place, field in enumerate(table.schema):
        if pa.types.is_nested(field.type) and _has_integers(field.type):
            cells = [_part(scalar) for chunk in table.column(place).chunks for scalar in chunk]
            frame.isetitem(place, pd.Series(cells, dtype=object).to_numpy())
    return frame


def _has_integers(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if not pa.types.is_nested(kind):
        return bool(pa.types.is_integer(kind))
    return any(_has_integers(kind.field(place).type) for place in range(kind.num_fields))


def _part(scalar: Any) -> Any:
    """Return a cell, or a part of a list or an object, as Python has it; small floats stay of their own type."""
    import pyarrow as pa

    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.MapScalar):
        return [[_part(pair["key"]), _part(pair["value"])] for pair in scalar.values]
    if isinstance(scalar, (pa.ListScalar, pa.LargeListScalar, pa.FixedSizeListScalar)):
        return [_part(each) for each in scalar.values]
    if isinstance(scalar, pa.StructScalar):
        return {name: _part(each) for name, each in scalar.items()}
    value = scalar.as_py()
    return scalar.type.to_pandas_dtype()(value) if pa.types.is_floating(scalar.type) else value
