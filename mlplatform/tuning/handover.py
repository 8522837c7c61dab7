"""Prepared folds handed to other processes of this machine: one copy in memory, whatever their number."""

from __future__ import annotations

import mmap
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlplatform.training import FoldData


@dataclass(frozen=True)
class HandedFolds:
    """Folds with their arrays in a file; small, so that it can travel to every process.

    Attributes:
        document: the folds without their arrays. It is pickled, as all that processes hand each other is, and exists
            in memory only.
        arrays: file of the arrays' bytes, one after another.
        lengths: of the arrays, in bytes.
    """

    document: bytes
    arrays: Path
    lengths: tuple[int, ...]


def without_caches(folds: Sequence[FoldData]) -> list[FoldData]:
    """Return the folds without what models keep with the samples; arrays are shared, not copied."""
    return [
        replace(fold, train=replace(fold.train, cache={}), validation=replace(fold.validation, cache={}))
        for fold in folds
    ]


def hand_over(folds: Sequence[FoldData], folder: Path) -> HandedFolds:
    """Write the arrays of folds into a file in `folder`, where they have to stay while a process uses them."""
    buffers: list[pickle.PickleBuffer] = []
    document = pickle.dumps(without_caches(folds), protocol=5, buffer_callback=buffers.append)
    path = folder / "folds.bin"
    lengths = []
    with path.open("wb") as stream:
        for buffer in buffers:
            lengths.append(stream.write(buffer.raw()))
            # Arrays start at multiples of a cache line.
            stream.write(bytes(-stream.tell() % 64))
    return HandedFolds(document, path, tuple(lengths))


def take_over(handed: HandedFolds) -> list[FoldData]:
    """Return the folds; their arrays are pages of the file, shared by all processes until one writes to them."""
    buffers = []
    if sum(handed.lengths):
        with handed.arrays.open("rb") as stream:
            # Copy on write: models may expect arrays that they could write to.
            pages = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY))
        start = 0
        for length in handed.lengths:
            buffers.append(pages[start : start + length])
            start += length + -length % 64
    folds: list[FoldData] = pickle.loads(handed.document, buffers=buffers)  # noqa: S301 - made by our own parent process
    return folds
