"""Between arrays and Feast's protobuf values, without a Python object per number.

Feast's own conversion makes a Python float of every step of every window, which is nearly all that reading and writing
windows through it costs. A packed list of 32-bit floats in protobuf is the bytes of the array behind a short head, so
both directions are one copy, and every bit survives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlplatform.features.tables import MISSING_TEXT

if TYPE_CHECKING:
    from feast.protos.feast.types.Value_pb2 import Value

Values = npt.NDArray[np.generic]
# Protobuf keeps the least significant byte first on every machine.
FLOAT32 = np.dtype("<f4")
LENGTH_DELIMITED = 2


def array_values(rows: Values) -> list[Value]:
    """Return one array value per row of (rows, steps) numbers or text; missing text becomes empty text."""
    return _text_arrays(rows) if rows.dtype == object else _float_arrays(rows)


def scalar_values(items: Values) -> list[Value]:
    """Return one value per number or text of (rows,); what is missing becomes a value without content."""
    from feast.protos.feast.types.Value_pb2 import Value

    if items.dtype == object:
        return [Value() if item is None else Value(string_val=item) for item in items.tolist()]
    return [Value() if item != item else Value(float_val=item) for item in items.tolist()]


def key_values(ids: Sequence[Any]) -> list[Value]:
    """Return one value per entity id, whole number or text."""
    from feast.protos.feast.types.Value_pb2 import Value

    return [Value(string_val=item) if isinstance(item, str) else Value(int64_val=item) for item in ids]


class StoredArrays:
    """The array values of one feature, of several entities.

    Parameters:
        values: one per entity, each an array of numbers or text, or without content.
        is_number: which of the two.

    Attributes:
        lengths: the different numbers of steps that the arrays have.
    """

    def __init__(self, values: Sequence[Value], is_number: bool) -> None:
        self._messages: list[bytes] = []
        self._texts: list[list[str]] = []
        if is_number:
            self._messages = [value.float_list_val.SerializeToString() for value in values]
            self.lengths = {_floats_in(size) for size in set(map(len, self._messages))}
        else:
            self._texts = [list(value.string_list_val.val) for value in values]
            self.lengths = set(map(len, self._texts))

    def last(self, steps: int) -> Values:
        """Return the last steps of every array, of shape (entities, steps); all arrays must have as many."""
        if self._texts:
            stacked = np.array([texts[-steps:] for texts in self._texts], dtype=object)
            stacked[stacked == np.array(MISSING_TEXT, dtype=object)] = None
            return stacked
        size = steps * FLOAT32.itemsize
        tails = b"".join([message[-size:] for message in self._messages])
        return np.frombuffer(tails, FLOAT32).astype(np.float32, copy=False).reshape(len(self._messages), steps)


def stack_scalars(values: Sequence[Value], is_number: bool) -> Values:
    """Return scalar values as an array of shape (values,); missing is NaN or `None`."""
    if is_number:
        numbers = [value.float_val if value.HasField("float_val") else np.nan for value in values]
        return np.array(numbers, dtype=np.float32)
    texts = np.empty(len(values), dtype=object)
    texts[:] = [value.string_val or None for value in values]
    return texts


def _float_arrays(rows: Values) -> list[Value]:
    from feast.protos.feast.types.Value_pb2 import FloatList, Value

    size = rows.shape[1] * FLOAT32.itemsize
    inner = _tag(FloatList, "val") + _varint(size)
    head = _tag(Value, "float_list_val") + _varint(len(inner) + size) + inner
    data = np.ascontiguousarray(rows, dtype=FLOAT32).tobytes()
    return [Value.FromString(head + data[start : start + size]) for start in range(0, len(data), size)]


def _floats_in(size: int) -> int:
    """Return how many numbers a message of a packed list of 32-bit floats holds, from its size in bytes."""
    count = max(0, size - 2) // FLOAT32.itemsize  # the head has two bytes, or more for longer lists
    while count and 1 + len(_varint(count * FLOAT32.itemsize)) + count * FLOAT32.itemsize > size:
        count -= 1
    return count


def _text_arrays(rows: Values) -> list[Value]:
    from feast.protos.feast.types.Value_pb2 import StringList, Value

    texts = [[MISSING_TEXT if item is None else item for item in row] for row in rows.tolist()]
    return [Value(string_list_val=StringList(val=row)) for row in texts]


def _tag(message: Any, field: str) -> bytes:
    return _varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | LENGTH_DELIMITED)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
