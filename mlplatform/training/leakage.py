"""The leakage check: rows after a fold's cut-off must not change a bit of what was learnt before it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from mlplatform.datamodule.base import DataModule
from mlplatform.datamodule.folds import Fold
from mlplatform.datamodule.panel import Panel
from mlplatform.preprocessing.manager import STATE_FILE, TransformManager
from mlplatform.training.cross_validation import fit_preprocessor


def find_leaks(module: DataModule, fold: Fold, stored: TransformManager, seed: int = 0) -> list[str]:
    """Return what depends on rows outside the fold's fitting rows; an empty list is a pass.

    Every row the fold may not be fitted on is replaced by noise. The preprocessor fitted again on the perturbed data,
    and the fitting rows it transforms, must equal the stored preprocessor's, bit for bit.

    Parameters:
        stored: the preprocessor that the fold's asset fitted.
    """
    leaks = []
    if module.config.task == "forecast" and len(fold.fit_rows):
        known = module.panel.timestamps[fold.fit_rows].max()
        last_targets = module.panel.timestamps[fold.train + module.config.horizon]
        if (last_targets > known).any():
            leaks.append(f"training targets reach {last_targets.max()}, beyond the cut-off {known}")
        first_targets = module.panel.timestamps[fold.validation + 1]
        if (first_targets <= known).any():
            leaks.append(f"validation targets start at {first_targets.min()}, not after the cut-off {known}")
    elif set(fold.fit_rows) & set(fold.validation):
        leaks.append("validation rows are among the rows that preprocessing was fitted on")
    perturbed = _perturb(module, fold, seed)
    original, module.panel = module.panel, perturbed
    try:
        refitted = fit_preprocessor(module, fold.fit_rows)
    finally:
        module.panel = original
    if _state(refitted) != _state(stored):
        leaks.append("the fitted preprocessor changes with rows after the cut-off")
    before, after = stored.transform(original), stored.transform(perturbed)
    for name in stored.columns:
        rows = fold.fit_rows
        if not np.array_equal(before.columns[name][rows], after.columns[name][rows], equal_nan=True):
            leaks.append(f"the transformed column {name!r} changes with rows after the cut-off")
    return leaks


def _perturb(module: DataModule, fold: Fold, seed: int) -> Panel:
    panel = module.panel
    outside = ~module.row_mask(fold.fit_rows)
    generator = np.random.default_rng(seed)
    columns = {}
    for name, values in panel.columns.items():
        changed = values.copy()
        if values.dtype == object:
            changed[outside] = "perturbed"
        else:
            changed[outside] = generator.normal(0, 1e6, int(outside.sum())).astype(np.float32)
        columns[name] = changed
    return panel.with_columns(columns)


def _state(manager: TransformManager) -> str:
    with tempfile.TemporaryDirectory() as folder:
        manager.save(Path(folder))
        return json.dumps(json.loads((Path(folder) / STATE_FILE).read_text()), sort_keys=True)
