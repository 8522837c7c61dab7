"""The state of an unfinished fit on disk: written atomically, read without unpickling objects, gone at the end."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlplatform.locks import FileLock

logger = logging.getLogger(__name__)

STATE_FILE = "fit.pt"
LOCK_SUFFIX = ".lock"


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Hold a checkpoint folder against other fits while the context is open; a killed holder loses it at once.

    Yields:
        Whether the folder could be had; if not, another fit is using it.
    """
    # Beside the folder, which exists only while there is a state in it.
    lock = FileLock(folder.with_name(f"{folder.name}{LOCK_SUFFIX}"), wait_s=0.0)
    if not lock.acquire():
        yield False
        return
    try:
        yield True
    finally:
        lock.path.unlink(missing_ok=True)
        lock.release()


def write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Replace the state in `folder`; a kill at any moment leaves the old or the new one whole."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    half = folder / f"{STATE_FILE}.half"
    with half.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    half.replace(folder / STATE_FILE)


def read_checkpoint(folder: Path, identity: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the state in `folder`, or `None` if there is none or it cannot be gone on with, which is logged.

    Parameters:
        identity: what the fit is the same by, part by part; the stored state has its own under `identity`.
    """
    import torch

    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        stored = state["identity"]
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        logger.warning("the checkpoint %s cannot be read (%s): starting from the first epoch", path, error)
        return None
    differing = [name for name, part in identity.items() if stored.get(name) != part]
    if not differing:
        return state
    logger.warning(
        "the checkpoint %s is of another fit (%s differ): starting from the first epoch and replacing it",
        path,
        ", ".join(differing),
    )
    return None


def remove_checkpoint(folder: Path) -> None:
    """Remove the state of a fit that has ended, and the folder if nothing else is in it."""
    for name in (STATE_FILE, f"{STATE_FILE}.half"):
        (folder / name).unlink(missing_ok=True)
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()
