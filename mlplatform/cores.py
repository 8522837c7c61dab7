"""How many processor cores this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Return the number of cores that the process may run on, at least 1.

    Containers and `taskset` allow fewer than the machine has. Where the operating system cannot say (macOS, Windows),
    it is the machine's number.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
