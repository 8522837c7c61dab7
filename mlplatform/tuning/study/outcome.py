"""How a trial's outcome is kept: small parts as JSON in the study's journal, arrays of the best trial beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlplatform.datamodule import Float32
from mlplatform.models import Bounds, Intervals
from mlplatform.tuning.objective import FittedTrial

ARRAYS = re.compile(r"\.trial_(\d+)\.npz$")
SIDES = ("point", "lower", "upper")
PARTIAL = re.compile(r"\.(\d+)\.partial$")


def to_json(outcome: FittedTrial) -> dict[str, Any]:
    """Return all but bounds and curves, as JSON values."""
    return {
        "params": outcome.params,
        "fold_scores": list(outcome.fold_scores),
        "fold_iterations": [list(iterations) for iterations in outcome.fold_iterations],
        "fit_seconds": outcome.fit_seconds,
    }


def from_json(values: dict[str, Any]) -> FittedTrial:
    """Rebuild what `to_json` returned, without bounds and curves."""
    return FittedTrial(
        params=values["params"],
        fold_scores=tuple(values["fold_scores"]),
        fold_iterations=tuple(tuple(iterations) for iterations in values["fold_iterations"]),
        fit_seconds=values["fit_seconds"],
    )


def arrays_path(journal: Path, number: int) -> Path:
    """Return the file of a trial's bounds and curves."""
    return journal.with_name(f"{journal.name}.trial_{number}.npz")


def save_arrays(outcome: FittedTrial, journal: Path, number: int) -> None:
    """Write a trial's bounds and curves, whole or not at all."""
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "shape": np.array([len(outcome.fold_scores), len(outcome.bounds)], dtype=np.int64)
    }
    for fold, intervals in enumerate(outcome.bounds):
        arrays |= {f"bounds/{fold}/{name}": getattr(intervals, name) for name in SIDES}
        arrays |= {
            f"others/{fold}/{each.coverage!r}/{side}": getattr(each, side)
            for each in intervals.others
            for side in ("lower", "upper")
        }
    for fold, curves in enumerate(outcome.curves):
        arrays |= {f"curves/{fold}/{name}": np.array(values, dtype=np.float64) for name, values in curves.items()}
    path = arrays_path(journal, number)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def load_arrays(outcome: FittedTrial, journal: Path, number: int) -> FittedTrial:
    """Return the outcome with the bounds and curves that `save_arrays` wrote.

    Raises:
        OSError: if there is no such file.
        ValueError: if it cannot be read.
    """
    from dataclasses import replace
    from zipfile import BadZipFile

    try:
        with np.load(arrays_path(journal, number), allow_pickle=False) as arrays:
            folds, with_bounds = arrays["shape"].tolist()
            bounds = tuple(_intervals(arrays, fold) for fold in range(with_bounds))
            curves: tuple[dict[str, tuple[float, ...]], ...] = tuple({} for _ in range(folds))
            for key in arrays.files:
                kind, _, rest = key.partition("/")
                if kind == "curves":
                    fold, _, name = rest.partition("/")
                    curves[int(fold)][name] = tuple(arrays[key].tolist())
    except (BadZipFile, KeyError, EOFError) as error:
        raise ValueError(f"{arrays_path(journal, number)} is damaged: {error}") from error
    return replace(outcome, bounds=bounds, curves=curves)


def _intervals(arrays: Mapping[str, Float32], fold: int) -> Intervals:
    """Return the bounds that a fold's model gave, those of further coverages in the order they were written."""
    start, end = f"others/{fold}/", "/lower"
    texts = [key.removeprefix(start).removesuffix(end) for key in arrays if key.startswith(start) and key.endswith(end)]
    others = [Bounds(arrays[f"{start}{each}/lower"], arrays[f"{start}{each}/upper"], float(each)) for each in texts]
    point, lower, upper = (arrays[f"bounds/{fold}/{name}"] for name in SIDES)
    return Intervals(point, lower, upper, tuple(others))


def drop_arrays(journal: Path, kept: Collection[int]) -> None:
    """Delete the files of all trials but some, and files that a killed process of this machine left half written."""
    for path in journal.parent.glob(f"{journal.name}.trial_*"):
        whole, half = ARRAYS.search(path.name), PARTIAL.search(path.name)
        if whole is not None and int(whole.group(1)) in kept:
            continue
        # Another worker may be writing at this moment.
        if half is not None and _is_running(int(half.group(1))):
            continue
        path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
