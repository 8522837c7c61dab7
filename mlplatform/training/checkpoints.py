"""The state of an unfinished fit on disk: written atomically, read without unpickling objects, gone at the end."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

STATE_FILE = "fit.pt"


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
    """Return the state in `folder`, or `None` if there is none or it is of another fit, which is logged.

    Parameters:
        identity: what the fit is the same by, part by part; the stored state has its own under `identity`.
    """
    import torch

    path = folder / STATE_FILE
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    differing = [name for name, part in identity.items() if state["identity"].get(name) != part]
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
