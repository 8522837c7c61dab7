"""Importing Feast fast: nothing heavy beside it, and nothing left changed behind it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import warnings
shown = list(warnings.filters)
from mlplatform.feast_import import import_feast
import typeguard
original = typeguard.typechecked
import_feast()
import_feast()
assert "feast" in sys.modules
assert warnings.filters == shown, warnings.filters
assert "torch" not in sys.modules, "torch was imported"
assert typeguard.typechecked is original
assert typeguard.typechecked.__module__.startswith("typeguard")
import torch
print(torch.tensor([1.0, 2.0]).sum().item())
"""


def test_torch_is_left_alone_and_can_be_imported_afterwards() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "3.0"


BESIDE = """
import sys, threading
from mlplatform.feast_import import _torch_hidden
found = []
with _torch_hidden():
    assert sys.modules.get("torch", 1) is not None
    other = threading.Thread(target=lambda: found.append(__import__("torch").Tensor))
    try:
        import torch
        raise SystemExit("torch was found")
    except ModuleNotFoundError:
        pass
    other.start()
    other.join()
assert found, "torch was hidden from another thread"
"""


def test_torch_is_hidden_from_no_other_thread() -> None:
    done = subprocess.run([sys.executable, "-c", BESIDE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
