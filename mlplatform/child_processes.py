"""Processes that a program of this project starts and does not leave behind, and ports for them to listen on."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

STOP_S = 20.0


@contextlib.contextmanager
def child_process(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a child process and make sure that it is gone at the end, however the block is left.

    Parameters:
        options: of `subprocess.Popen`.
    """
    process: subprocess.Popen[str] = subprocess.Popen(command, **options)  # noqa: S603 - this project's own programs
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
