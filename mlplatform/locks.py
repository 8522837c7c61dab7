"""The platform's one kind of file lock: between threads and processes, and free the moment its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Self

POLL_S = 0.05


class LockedError(RuntimeError):
    """A file that another holder did not release in time."""


class FileLock:
    """A lock of the kernel (`flock`) on a file, which is created and never written to.

    The file has to be on a file system of this machine, or one that passes `flock` on, as NFS 4 does. Its holder may
    remove it before releasing the lock: whoever waits notices and takes the file that is there next.

    Parameters:
        path: file to lock; missing folders above it are created.
        shared: hold it together with other shared holders, against exclusive ones.
        wait_s: how long to wait for other holders; `None`: for as long as it takes.
    """

    def __init__(self, path: Path, *, shared: bool = False, wait_s: float | None = None) -> None:
        self.path = path
        self._wait_s = wait_s
        self._kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait_s is None else fcntl.LOCK_NB)
        self._held: int | None = None

    def acquire(self) -> bool:
        """Take the lock; return whether it could be had in time."""
        began = time.monotonic()
        while (descriptor := self._locked_file()) is None:
            if self._wait_s is not None and time.monotonic() - began >= self._wait_s:
                return False
            time.sleep(POLL_S)
        self._held = descriptor
        return True

    def release(self) -> None:
        """Give the lock back."""
        assert self._held is not None
        descriptor, self._held = self._held, None
        os.close(descriptor)

    def __enter__(self) -> Self:
        if not self.acquire():
            raise LockedError(
                f"{self.path} was not free within {self._wait_s:g} s: another process holds it locked; wait for it to "
                "end, or stop it"
            )
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()

    def _locked_file(self) -> int | None:
        """Return the descriptor that holds the lock, or None if another one does."""
        while True:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Another process may remove the empty parent in between.
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                with contextlib.ExitStack() as closing:
                    closing.callback(os.close, descriptor)
                    try:
                        fcntl.flock(descriptor, self._kind)
                    except BlockingIOError:
                        return None
                    # Its last holder may have removed the file after it was opened here: nobody else sees this lock.
                    if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                        closing.pop_all()
                        return descriptor
