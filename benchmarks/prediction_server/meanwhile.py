"""Work that goes on in a thread while something else is measured."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run some work while the context is open; what it raised is raised once the context is left.

    Parameters:
        work: ends soon after the event that it is given is set, which is when the context is left.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work, stop)
        try:
            yield
        finally:
            stop.set()
    working.result()
