"""The file lock: exclusive or shared, waited for within bounds, and sound when its file is removed."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from mlplatform.locks import FileLock, LockedError


def is_free(path: Path, *, shared: bool = False) -> bool:
    lock = FileLock(path, shared=shared, wait_s=0.0)
    if not lock.acquire():
        return False
    lock.release()
    return True


def test_shared_holders_keep_only_exclusive_ones_out(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    with FileLock(path, shared=True), FileLock(path, shared=True):
        assert is_free(path, shared=True)
        assert not is_free(path)
    with FileLock(path):
        assert not is_free(path, shared=True)
        assert not is_free(path)
    assert is_free(path)


def test_a_lock_that_is_not_free_in_time_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    began = time.monotonic()
    with FileLock(path), pytest.raises(LockedError, match=r"/lock was not free within 0.2 s: another process"):  # noqa: SIM117
        with FileLock(path, wait_s=0.2):
            pass
    assert 0.2 <= time.monotonic() - began < 5


def test_whoever_waited_gets_the_file_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = FileLock(path)
    holder.acquire()
    waited: list[bool] = []

    def wait() -> None:
        with FileLock(path):
            waited.append(is_free(path))

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.1)
    path.unlink()
    holder.release()
    waiting.join(10)
    assert waited == [False]
    assert path.exists()
