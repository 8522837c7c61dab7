"""Who asked the platform for what, when and why, in a file per month that is only appended to."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from mlplatform.locks import FileLock
from mlplatform.settings import Settings


class Audit:
    """The record of an installation; several servers may share it."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.home / "platform"

    def note(self, **entry: Any) -> None:
        """Append an entry.

        Raises:
            OSError: if it cannot be kept; what cannot be recorded must not be done.
        """
        now = dt.datetime.now(dt.UTC)
        path = self.folder / f"audit-{now:%Y-%m}.jsonl"
        line = json.dumps({"at": now.isoformat(timespec="milliseconds"), **entry}, separators=(",", ":"))
        with FileLock(self.folder / "audit.lock", wait_s=10), path.open("a", encoding="utf-8") as file:
            file.write(f"{'' if _ends_line(path) else chr(10)}{line}\n")
            file.flush()
            os.fsync(file.fileno())


def token_mark(authorization: str) -> str:
    """Return what tells tokens apart without being one: the beginning of a digest."""
    token = authorization.partition(" ")[2].strip()
    return f"token {hashlib.sha256(token.encode()).hexdigest()[:8]}"


def _ends_line(path: Path) -> bool:
    """Return whether what is appended begins a line; a process that was killed may have left half of one."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
