"""The first import of Feast in a process, without the torch import that comes with it.

Feast tries to import torch for its `to_tensor` methods, which nothing here uses, and copes with its absence. Importing
torch takes seconds, which every process that reads features would pay, whatever its model.
"""

from __future__ import annotations

import importlib
import sys
import threading

_lock = threading.Lock()


def import_feast() -> None:
    """Import Feast; torch stays unimported if it was, and can be imported afterwards as usual."""
    with _lock:
        if "feast" in sys.modules:
            return
        hide = "torch" not in sys.modules
        if hide:
            # None makes `import torch` raise ModuleNotFoundError, for the moment that Feast looks for it.
            sys.modules["torch"] = None  # type: ignore[assignment]
        try:
            importlib.import_module("feast")
        finally:
            if hide:
                del sys.modules["torch"]
