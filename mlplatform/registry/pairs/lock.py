"""One writer at a time per pair name, on one machine and across machines that share an MLflow server.

On one machine a file lock in the state folder does it: the operating system releases it with its holder, however that
ends. MLflow has no lock and no compare-and-set, but its tags are shared memory that everyone reads alike, and that is
all that Lamport's bakery algorithm needs: every writer announces itself in a tag of its own on `<name>_model`, draws a
number larger than all it sees, and waits for those with smaller numbers. A writer that died leaves its tag behind. On
the same machine the file lock proves it dead at once; the tag of another machine counts as dead when it stayed the same
for `LEASE_S` seconds of the waiting machine's own clock, so clocks need not agree.

A writer that is stopped for longer than its lease and then goes on is the case no lease can exclude. It is the reason
why no reader depends on this lock: two writers at once can waste version numbers, but not tear a pair.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.locks import FileLock
from mlplatform.registry.pairs.info import PairConflictError, registered_model
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

PREFIX = "writer."
LEASE_S = 60.0
POLL_S = 0.05


@dataclass(frozen=True)
class _Record:
    """What a writer announces. The number is 0 while it is still choosing one."""

    origin: str
    number: int
    beat: int = 0

    def to_json(self) -> str:
        return json.dumps(vars(self))


class Ticket:
    """One writer's place in the queue for a pair name.

    Parameters:
        model: registered model whose tags hold the queue; it must exist.
        origin: what identifies the file lock that this writer holds.
    """

    def __init__(self, client: MlflowClient, model: str, origin: str) -> None:
        self._client, self._model = client, model
        self._key = f"{PREFIX}{uuid.uuid4().hex}"
        self._record = _Record(origin, 0)
        self._written = 0.0
        self._seen: dict[str, tuple[str, float]] = {}

    def wait(self) -> None:
        """Return when all writers with smaller numbers are done or dead."""
        self._write(self._record)
        number = 1 + max((_parse(text).number for text in self._others().values()), default=0)
        self._write(_Record(self._record.origin, number))
        while ahead := {key: text for key, text in self._others().items() if self._is_ahead(key, text)}:
            if not self._remove_dead(ahead):
                time.sleep(POLL_S)
            self.keep()

    def keep(self) -> None:
        """Renew the lease if a good part of it is over. Call before every write that commits something.

        Raises:
            PairConflictError: if another writer took this one for dead.
        """
        if time.monotonic() - self._written < LEASE_S / 3:
            return
        if self._key not in self._tags():
            raise PairConflictError(
                f"writing to {self._model} took longer than {LEASE_S:g} s, and another writer went on in the meantime; "
                "run this again"
            )
        self._write(_Record(self._record.origin, self._record.number, self._record.beat + 1))

    def give_up(self) -> None:
        """Leave the queue. A failure is logged only: the lease ends it as well."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.delete_registered_model_tag(self._model, self._key)
        except MlflowException as error:
            logger.warning("the lock on %s could not be released and ends by itself: %s", self._model, error)

    def _write(self, record: _Record) -> None:
        self._client.set_registered_model_tag(self._model, self._key, record.to_json())
        self._record, self._written = record, time.monotonic()

    def _tags(self) -> dict[str, Any]:
        return dict(self._client.get_registered_model(self._model).tags)

    def _others(self) -> dict[str, str]:
        return {key: text for key, text in self._tags().items() if key.startswith(PREFIX) and key != self._key}

    def _is_ahead(self, key: str, text: str) -> bool:
        other = _parse(text)
        return other.number == 0 or (other.number, key) < (self._record.number, self._key)

    def _remove_dead(self, ahead: Mapping[str, str]) -> bool:
        """Remove the records of dead writers; return whether there were any."""
        now, removed = time.monotonic(), False
        for key, text in ahead.items():
            known, since = self._seen.get(key, ("", now))
            if known != text:
                self._seen[key] = text, now
            # Whoever wrote under the file lock that is held here has ended without releasing it.
            if _parse(text).origin == self._record.origin or (known == text and now - since >= LEASE_S):
                logger.warning("a writer of %s ended without releasing its lock", self._model)
                self._client.delete_registered_model_tag(self._model, key)
                removed = True
        return removed


@contextlib.contextmanager
def only_writer(client: MlflowClient, settings: Settings, name: str) -> Iterator[Ticket]:
    """Be the only process that changes the pairs called `name`; the registered models must exist."""
    path = settings.home / "locks" / f"registry_{name}.lock"
    with FileLock(path):
        ticket = Ticket(client, registered_model(name, "model"), _origin(path))
        try:
            ticket.wait()
            yield ticket
        finally:
            ticket.give_up()


def _origin(lock: Path) -> str:
    """Identify a lock file among all machines, copies of its folder included. Call with the lock held."""
    identity = lock.with_suffix(".id")
    if not identity.exists() or not identity.read_text():
        identity.write_text(uuid.uuid4().hex)
    return f"{socket.gethostname()}:{identity.read_text()}:{lock.stat().st_ino}"


def _parse(text: str) -> _Record:
    return _Record(**json.loads(text))
