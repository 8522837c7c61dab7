"""The leakage check: rows that a fold may not see must not change a bit of what was learnt from those it may."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlplatform.datamodule import DataModule, Fold, Panel
from mlplatform.plugins import SPLITTERS
from mlplatform.preprocessing import STATE_FILE, TransformManager
from mlplatform.training.cross_validation import fit_preprocessor


def find_leaks(module: DataModule, fold: Fold, stored: TransformManager, seed: int = 0) -> list[str]:
    """Return what depends on rows outside the fold's fitting rows; an empty list is a pass.

    Every row the fold may not be fitted on is replaced by noise. The preprocessor fitted again on the perturbed data,
    and the fitting rows it transforms, must equal the stored preprocessor's, bit for bit. Folds by time may transform
    with the help of rows before their fitting rows, as a forecast may: that is known history.

    Parameters:
        stored: the preprocessor that the fold's asset fitted.
    """
    leaks = _overlaps(module, fold)
    outside = ~module.row_mask(fold.fit_rows)
    original, perturbed = module.panel, _perturb(module.panel, outside, seed)
    changed = copy.copy(module)
    changed.panel = perturbed
    refitted = fit_preprocessor(changed, fold.fit_rows)
    if _state(refitted) != _state(stored):
        leaks.append("the fitted preprocessor changes with rows after the cut-off")
    if _separates(module) == "time" and len(fold.fit_rows):
        later = original.timestamps > original.timestamps[fold.fit_rows].max()
        perturbed = _perturb(original, outside & later, seed)
    before, after = stored.transform(original), stored.transform(perturbed)
    for name in stored.columns:
        rows = fold.fit_rows
        if not np.array_equal(before.columns[name][rows], after.columns[name][rows], equal_nan=True):
            leaks.append(f"the transformed column {name!r} changes with rows after the cut-off")
    return leaks


def _separates(module: DataModule) -> str:
    """Return what keeps the two sides of a fold apart: `time`, `groups` or `rows`."""
    return str(SPLITTERS.get(module.config.split.cv.name).separates)


def _overlaps(module: DataModule, fold: Fold) -> list[str]:
    """Return where the two sides of a fold meet, by what its splitter promises to keep apart."""
    if not len(fold.fit_rows):
        return []
    kind = _separates(module)
    if kind == "time":
        return _time_overlaps(module, fold)
    leaks = []
    # A forecast's window may not touch a fitting row anywhere; a sample of a table is its own window.
    fitted_before = np.concatenate([[0], np.cumsum(module.row_mask(fold.fit_rows))])
    first = fold.validation - max(module.config.lookback - 1, 0)
    if (fitted_before[fold.validation + module.config.horizon + 1] > fitted_before[first]).any():
        leaks.append("validation rows are among the rows that preprocessing was fitted on")
    index = module.index()
    if index.identities is not None:
        learnt = np.setdiff1d(np.union1d(fold.train, fold.fit_rows), fold.validation)
        copies = np.isin(index.identities[fold.validation], index.identities[learnt])
        if copies.any():
            leaks.append(f"{int(copies.sum())} validation rows are copies of rows that were trained on")
    groups = index.groups
    if kind == "groups" and groups is not None:
        seen = set(groups[np.union1d(fold.train, fold.fit_rows)].tolist())
        shared = sorted(map(str, seen & set(groups[fold.validation].tolist())))
        if shared:
            leaks.append(f"{len(shared)} groups are on both sides of the fold: {', '.join(shared[:5])}")
    return leaks


def _time_overlaps(module: DataModule, fold: Fold) -> list[str]:
    leaks = []
    known = module.panel.timestamps[fold.fit_rows].max()
    last_targets = module.panel.timestamps[fold.train + module.config.horizon]
    if (last_targets > known).any():
        leaks.append(f"training targets reach {last_targets.max()}, beyond the cut-off {known}")
    first_targets = module.panel.timestamps[fold.validation + 1]
    if (first_targets <= known).any():
        leaks.append(f"validation targets start at {first_targets.min()}, not after the cut-off {known}")
    return leaks


def _perturb(panel: Panel, rows: npt.NDArray[np.bool_], seed: int) -> Panel:
    generator = np.random.default_rng(seed)
    columns = {}
    for name, values in panel.columns.items():
        changed = values.copy()
        if values.dtype == object:
            changed[rows] = "perturbed"
        else:
            changed[rows] = generator.normal(0, 1e6, int(rows.sum())).astype(np.float32)
        columns[name] = changed
    return panel.with_columns(columns)


def _state(manager: TransformManager) -> str:
    with tempfile.TemporaryDirectory() as folder:
        manager.save(Path(folder))
        return json.dumps(json.loads((Path(folder) / STATE_FILE).read_text()), sort_keys=True)
