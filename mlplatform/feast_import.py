"""The first import of Feast in a process, without what makes it slow and serves nothing here.

Feast tries to import torch for its `to_tensor` methods, which nothing here uses, and copes with its absence. It also
decorates its classes with typeguard's run-time checks, which parse and compile every class again: two thirds of the
import. Feast's objects are built by this package alone, under mypy and tests. The plain `feast` command does not come
through here and keeps both.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_lock = threading.Lock()


def import_feast() -> None:
    """Import Feast; torch stays unimported if it was, and can be imported afterwards as usual."""
    with _lock:
        if "feast" not in sys.modules:
            # Feast has Python show every deprecation, those of other packages included; what shows is for us to say.
            with warnings.catch_warnings(), _torch_hidden(), _typeguard_idle():
                importlib.import_module("feast")


@contextlib.contextmanager
def _torch_hidden() -> Iterator[None]:
    """Have `import torch` raise ModuleNotFoundError in this thread, unless torch is imported already.

    A `None` in `sys.modules` would do it in all threads, and break those libraries that look there for torch's classes.
    """
    finder = _NoTorch(threading.get_ident())
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@dataclass(frozen=True)
class _NoTorch:
    """A finder of modules that knows, in one thread, that there is no torch."""

    thread: int

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> None:
        """Leave every other module, and other threads, to the finders that follow."""
        if name == "torch" and threading.get_ident() == self.thread:
            raise ModuleNotFoundError("torch is left out of the import of Feast", name="torch")


@contextlib.contextmanager
def _typeguard_idle() -> Iterator[None]:
    """Have typeguard's decorator return what it is given."""
    import typeguard

    original = typeguard.typechecked
    typeguard.typechecked = _unchanged
    try:
        yield
    finally:
        typeguard.typechecked = original


def _unchanged(target: Any = None, **_: Any) -> Any:
    """Stand in for `typechecked`, used as `@typechecked` or `@typechecked(...)`."""
    return _unchanged if target is None else target
