"""The study's journal: an append-only file that several processes write to and that outlives any of them.

Import it inside functions: it loads Optuna.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from mlplatform.locks import FileLock

# How long a new search waits for the workers of a killed one to notice and leave.
HANDOVER_S = 10.0


class KernelLock(FileLock, JournalFileOpenLock):
    """The platform's file lock in the place of Optuna's own.

    The lock files of that one stay behind when their holder is killed, and everyone waits for half a minute.
    """


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
    with _session(journal, shared=False):
        yield


@contextmanager
def part_of_search(journal: Path) -> Iterator[None]:
    """Keep new searches off the journal while the context is open; several processes can at a time."""
    with _session(journal, shared=True):
        yield


@contextmanager
def _session(journal: Path, shared: bool) -> Iterator[None]:
    lock = FileLock(session_file(journal), shared=shared, wait_s=HANDOVER_S)
    if not lock.acquire():
        raise RuntimeError(f"another process is searching with the journal {journal}; wait for it to end, or stop it")
    try:
        yield
    finally:
        lock.release()
