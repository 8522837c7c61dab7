"""Tensors of the Open Inference Protocol: from JSON or bytes to values, and back.

The binary form is that of the binary tensor data extension: numbers little-endian and row-major, each element of a
`BYTES` tensor after its length in four bytes.
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from serving.errors import ErrorDetail, ServingError, invalid, shown

FP32, INT64, BYTES = "FP32", "INT64", "BYTES"
NUMBERS = {
    "BOOL": np.dtype("?"),
    **{f"{kind}{bits}": np.dtype(f"<{code}{bits // 8}") for kind, code in (("INT", "i"), ("UINT", "u"))
       for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}  # fmt: skip
BINARY_SIZE = "binary_data_size"
_LENGTH = struct.Struct("<I")


class InputTensor(BaseModel):
    """A tensor of a request; its data stand here, or behind the JSON part of the body."""

    name: str
    shape: list[int] = Field(min_length=1, max_length=8)
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


@dataclass(frozen=True)
class Values:
    """The elements of a tensor.

    Attributes:
        flat: Python numbers, texts and nulls in row-major order.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    flat: list[Any]


def read_tensors(tensors: Sequence[InputTensor], binary: bytes) -> list[Values]:
    """Return the values of a request's tensors.

    Parameters:
        binary: what follows the JSON part of the body: the data of the tensors that say how long theirs are, in order.

    Raises:
        ServingError: 422 that names the tensor.
    """
    found, place = [], 0
    for tensor in tensors:
        size = tensor.parameters.get(BINARY_SIZE)
        if size is None:
            found.append(_of_json(tensor))
            continue
        if type(size) is not int or not 0 <= size <= len(binary) - place:
            expected = f"a number of bytes up to the {len(binary) - place} that the body has left"
            raise _wrong(tensor, f"{BINARY_SIZE} {shown(size)}", expected, "send all of the data")
        if tensor.data is not None:
            raise _wrong(tensor, f"data and {BINARY_SIZE}", "one of them", "leave one out")
        found.append(_of_bytes(tensor, binary[place : place + size]))
        place += size
    if place != len(binary):
        found_bytes = f"{len(binary)} bytes behind the JSON part"
        detail = ErrorDetail(
            field="inputs",
            found=found_bytes,
            expected=f"{place}, as {BINARY_SIZE} of the inputs says",
            action="correct one of them",
        )
        raise invalid("invalid_request", [detail])
    return found


def written_json(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic] | list[Any]:
    """Return an array as `data` of a tensor: flat, in row-major order."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return flat.tolist() if flat.dtype == object else flat


def written_bytes(values: npt.NDArray[np.generic]) -> bytes:
    """Return an array in the binary form."""
    if values.dtype != object:
        return np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    texts = [text.encode() for text in values.reshape(-1).tolist()]
    return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))


def _of_json(tensor: InputTensor) -> Values:
    if tensor.data is None:
        raise _wrong(tensor, "no data", f"data, or {BINARY_SIZE} in parameters", "send the values")
    flat: list[Any] = tensor.data
    # Nested or flat, as the protocol allows; no deeper than the shape, so that what is wrong is found as such.
    for _ in tensor.shape[1:]:
        if flat and all(type(part) is list for part in flat):
            flat = [value for part in flat for value in part]
    _check_count(tensor, len(flat))
    return Values(tensor.name, tensor.datatype, tuple(tensor.shape), flat)


def _of_bytes(tensor: InputTensor, data: bytes) -> Values:
    if tensor.datatype == BYTES:
        flat: list[Any] = _texts(tensor, data)
    elif tensor.datatype not in NUMBERS:
        raise _wrong(tensor, f"datatype {shown(tensor.datatype)}", f"one of {', '.join((*NUMBERS, BYTES))}", "use one")
    else:
        kind = NUMBERS[tensor.datatype]
        if len(data) % kind.itemsize:
            raise _wrong(tensor, f"{len(data)} bytes", f"a multiple of {kind.itemsize}", "send whole numbers of values")
        flat = np.frombuffer(data, kind).tolist()
    _check_count(tensor, len(flat))
    return Values(tensor.name, tensor.datatype, tuple(tensor.shape), flat)


def _texts(tensor: InputTensor, data: bytes) -> list[str]:
    texts: list[str] = []
    place = 0
    while place < len(data):
        end = place + _LENGTH.size
        if end <= len(data):
            (length,) = _LENGTH.unpack_from(data, place)
            end += length
        if end > len(data):
            raise _wrong(
                tensor, f"data that end within element {len(texts)}", "every element after its length", "fix it"
            )
        try:
            texts.append(data[place + _LENGTH.size : end].decode())
        except UnicodeDecodeError as error:
            raise _wrong(tensor, f"element {len(texts)} that is not UTF-8", "text in UTF-8", "encode it so") from error
        place = end
    return texts


def _check_count(tensor: InputTensor, count: int) -> None:
    if any(length < 0 for length in tensor.shape) or math.prod(tensor.shape) != count:
        expected = f"as many values as shape {tensor.shape} has"
        raise _wrong(tensor, f"{count} values", expected, "correct shape or data")


def _wrong(tensor: InputTensor, found: str, expected: str, action: str) -> ServingError:
    detail = ErrorDetail(field=f"input {shown(tensor.name)}", found=found, expected=expected, action=action)
    return invalid("invalid_request", [detail])
