"""Writing files and folders so that a reader sees the old content or the new, whole, whenever the writer stops."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

ABANDONED_AFTER_S = 86_400


class StorageError(RuntimeError):
    """A path that holds something the platform did not write."""


@contextlib.contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path; what was written there replaces `target` on success and is deleted on failure."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}"
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(target)
        _sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: Path, keep_previous_s: float = 0.0) -> Iterator[Path]:
    """Yield a new, empty folder; on success `target` becomes a link to it, and on failure it is deleted.

    Several files change together this way: two renames can be cut apart by a crash, one swing of a link cannot.

    Parameters:
        keep_previous_s: how long, in seconds, the folder that the link named before stays for readers that are still in
            it. Above zero, the caller must see to it that there is one writer at a time.

    Raises:
        StorageError: if `target` is there and is not such a link.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target) and not _is_own_link(target):
        raise StorageError(f"{target} should be a link made by an earlier run, but is something else; move it away")
    folder = target.parent / f".{target.name}.{uuid.uuid4().hex}"
    link = target.parent / f"{folder.name}.link"
    folder.mkdir()
    try:
        yield folder
        for path in (*folder.rglob("*"), folder):
            # A file with several names is linked from an earlier folder, and was synced there.
            if path.is_dir() or path.stat().st_nlink == 1:
                _sync(path)
        previous = target.resolve() if target.is_symlink() else None
        link.symlink_to(folder.name, target_is_directory=True)
        link.replace(target)
    except BaseException:
        link.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _sync(target.parent)
    if previous is not None and keep_previous_s:
        os.utime(previous)
    elif previous is not None:
        shutil.rmtree(previous, ignore_errors=True)
    _remove_abandoned(target, keep_previous_s or ABANDONED_AFTER_S)


def _is_own_link(target: Path) -> bool:
    """Tell links made here from those that a person made, whose folder must not be deleted."""
    return target.is_symlink() and target.readlink().name.startswith(f".{target.name}.")


def _remove_abandoned(target: Path, older_than_s: float) -> None:
    """Delete the folders of runs that were killed, and replaced ones. Recent ones may still be in use."""
    current = target.resolve()
    for path in target.parent.glob(f".{target.name}.*"):
        with contextlib.suppress(OSError):
            if path.resolve() != current and time.time() - path.lstat().st_mtime > older_than_s:
                if path.is_symlink():
                    path.unlink()
                else:
                    shutil.rmtree(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
