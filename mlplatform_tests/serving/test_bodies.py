"""Compressed bodies are read within the limit, however much they would become."""

from __future__ import annotations

import gzip
import time
import tracemalloc

import pytest

from serving.bodies import decompressed
from serving.errors import ServingError

LIMIT = 1000


def refusal(body: bytes) -> ServingError:
    with pytest.raises(ServingError) as caught:
        decompressed(body, LIMIT)
    return caught.value


@pytest.mark.parametrize("length", [0, 1, LIMIT])
def test_what_fits_comes_out_whole(length: int) -> None:
    assert decompressed(gzip.compress(b"x" * length), LIMIT) == b"x" * length


def test_several_bodies_in_a_row_are_one() -> None:
    assert decompressed(gzip.compress(b"a" * 400) + gzip.compress(b"b" * 600), LIMIT) == b"a" * 400 + b"b" * 600
    assert refusal(gzip.compress(b"a" * 400) + gzip.compress(b"b" * 601)).status == 413


def test_one_byte_too_many_is_refused() -> None:
    error = refusal(gzip.compress(b"x" * (LIMIT + 1)))
    assert (error.status, error.code) == (413, "body_too_large")
    assert "more than 1000 bytes after decompression" in error.message


def test_a_bomb_takes_no_memory() -> None:
    bomb = gzip.compress(b"\0" * 200_000_000, 1)
    tracemalloc.start()
    try:
        assert refusal(bomb).status == 413
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_tens_of_thousands_of_empty_bodies_cost_what_their_length_does() -> None:
    empty = gzip.compress(b"")
    started = time.process_time()
    assert decompressed(empty * 200_000, LIMIT) == b""
    # Where each copies all that stands behind it, this takes twenty seconds.
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", gzip.compress(b"x" * 100, mtime=0)[:-1], gzip.compress(b"x", mtime=0) + b"rest"],
    ids=["empty", "plain", "cut off", "followed by more"],  # gzip itself contains the time
)
def test_what_is_not_whole_gzip_is_refused(body: bytes) -> None:
    error = refusal(body)
    assert (error.status, error.code) == (422, "invalid_encoding")
    assert "gzip" in error.message
