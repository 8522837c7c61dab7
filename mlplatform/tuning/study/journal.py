"""The study's journal: an append-only file that several processes write to and that outlives any of them.

Import it inside functions: it loads Optuna.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

# How long a new search waits for the workers of a killed one to notice and leave.
HANDOVER_S = 10.0


class KernelLock(JournalFileOpenLock):
    """An exclusive lock that the operating system takes back when its holder dies, at once.

    Optuna's own lock files stay behind when their holder is killed, and everyone waits for half a minute. The locked
    file has to be on a file system of this machine, or one that passes `flock` on, as NFS 4 does.

    Parameters:
        path: file to lock; it is created, and nothing is written to it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except BaseException:
            os.close(descriptor)
            raise
        self._held = descriptor
        return True

    def release(self) -> None:
        """Give the lock back."""
        assert self._held is not None
        descriptor, self._held = self._held, None
        os.close(descriptor)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *raised: object) -> None:
        self.release()


class Journal(JournalFileBackend):
    """Optuna's file, which waits for the disk after every entry, except after reports of a trial under way.

    A booster of small trees reports hundreds of times a second, and waiting would cost several times the fit. The next
    entry of another kind puts the reports on the disk too. Only a crash of the machine can lose them, and it interrupts
    the trial, which is then repeated.
    """

    def __init__(self, journal: Path) -> None:
        self._journal, self._writing = journal, KernelLock(journal)
        super().__init__(str(journal), lock_obj=self._writing)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries."""
        if not all("intermediate_value" in log for log in logs):
            super().append_logs(logs)
            return
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._writing, self._journal.open("ab") as stream:
            stream.write(lines.encode())


def open_storage(journal: Path) -> optuna.storages.JournalStorage:
    """Return the storage on a journal file, which is created if it does not exist."""
    return optuna.storages.JournalStorage(Journal(journal))


def repair(journal: Path) -> None:
    """Cut off a last line without an end, as a crash of the machine or a full disk leave it.

    The next entry would be appended to it, and both would be lost.
    """
    if not journal.exists():
        return
    with journal.open("r+b") as stream:
        content = stream.read()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            stream.truncate(whole)


def session_file(journal: Path) -> Path:
    """Return the file that the processes of a search hold locked."""
    return journal.with_name(f"{journal.name}.session")


@contextmanager
def only_search(journal: Path) -> Iterator[None]:
    """Make sure that no other search, nor a worker of one, writes to the journal while the context is open.

    Raises:
        RuntimeError: if one still does after some seconds.
    """
    with _locked(session_file(journal), fcntl.LOCK_EX, journal):
        yield


@contextmanager
def part_of_search(journal: Path) -> Iterator[None]:
    """Keep new searches off the journal while the context is open; several processes can at a time."""
    with _locked(session_file(journal), fcntl.LOCK_SH, journal):
        yield


@contextmanager
def _locked(path: Path, kind: int, journal: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + HANDOVER_S
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        f"another process is searching with the journal {journal}; wait for it to end, or stop it"
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)
