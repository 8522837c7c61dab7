"""Does anything leak? Nested cross-validation audited row by row, and folds whose future is replaced by noise.

Audit: on every outer fold of a simulated fleet and of scikit-learn's diabetes, the training procedure (inner folds,
search, refit, baselines) runs twice, the second time with every read recorded and all rows but the outer training rows
poisoned. Leak test: in every fold of every splitter for forecasts, all rows the fold may not see become noise, and the
fitted preprocessor and the rows it transforms must keep every bit.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from figures import report

from mlplatform.config import load_experiment
from mlplatform.datamodule import DataModule, create_data_module
from mlplatform.settings import Settings

BENCHMARK = "nested"
TRIALS = 4
SEARCH = (f"tuning.trials={TRIALS}", "tuning.timeout_s=null", "tuning.executor=inline")
# Four transformers over 120 days; inner and outer folds of a week.
FLEET = ("dataset.source.options.entities=4", "dataset.source.options.end=2024-04-30T00:00:00+00:00",
         "model.params.num_boost_round=30", "lookback=48", "horizon=12")  # fmt: skip
BLOCKS = ("split.cv.params.validation_steps=168",)
SLIDING = ("split=fleet_sliding_v1", *BLOCKS, "split.cv.params.train_steps=1000")
ENTITIES = ("split=fleet_entities_v1",)


def main() -> None:
    """Audit every outer fold, and look for leaks in every fold."""
    fleet = {
        "fleet": [*BLOCKS, "++nested.outer_folds=3"],
        "fleet, whole entities": [*ENTITIES, "++nested.outer_folds=2"],
    }
    for case, overrides in fleet.items():
        audit(case, read("fleet_xgboost", [*FLEET, *SEARCH, "split.folds=2", *overrides]))
    audit("diabetes", read("diabetes_xgboost", [*SEARCH, "++nested.outer_folds=5"]))
    for case, chosen in (("expanding", BLOCKS), ("sliding", SLIDING), ("group_kfold", ENTITIES)):
        leaks(case, read("fleet_xgboost", [*FLEET, *chosen]))


def read(experiment: str, overrides: Sequence[str]) -> DataModule:
    """Return all rows of an experiment's dataset, read and put on their grid by a new installation."""
    from mlplatform.data import ingest
    from mlplatform.features.feast import apply_dataset
    from mlplatform.features.retrieval import load_history
    from mlplatform.features.tables import update_feature_table

    with tempfile.TemporaryDirectory() as home:
        settings = Settings.from_env({"MLPLATFORM_HOME": home})
        config = load_experiment(experiment, overrides, settings)
        ingest(config.dataset, settings)
        update_feature_table(config.dataset, settings)
        apply_dataset(config.dataset, settings)
        return create_data_module(config, load_history(config.dataset, tuple(config.dataset.columns), settings))


def audit(case: str, module: DataModule) -> None:
    """Report what the procedure read and what poison changed, over all outer folds of one module."""
    from mlplatform.candidates import outer_folds
    from mlplatform.testing import audit_rows

    folds = outer_folds(module)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        audits = [audit_rows(module, fold, Path(name) / str(k)) for k, fold in enumerate(folds)]
    seconds = time.perf_counter() - started
    touched, read = sum(len(each.touched) for each in audits), sum(len(each.read) for each in audits)
    allowed = sum(len(fold.fit_rows) for fold in folds)
    differences = sum(len(each.differences) for each in audits)
    what = f"{case}, {len(folds)} outer folds, {TRIALS} trials"
    report(BENCHMARK, f"{what}: outer test rows touched by tuning", touched, "rows", aim="0", met=not touched)
    report(BENCHMARK, f"{what}: outer training rows read", read, "rows", aim=f"all {allowed}", met=read == allowed)
    report(BENCHMARK, f"{what}: inner results that poisoned test rows changed", differences, "", aim="0, bit for bit",
           met=not differences)  # fmt: skip
    report(BENCHMARK, f"{what}: the audit, two runs per fold", seconds, "s")


def leaks(case: str, module: DataModule) -> None:
    """Report in how many folds of a splitter noise outside the fold changes what was learnt inside it."""
    from mlplatform.training import find_leaks, fit_preprocessor

    folds = module.folds()
    found = [leak for fold in folds for leak in find_leaks(module, fold, fit_preprocessor(module, fold.fit_rows))]
    outside = sum(module.panel.rows - len(fold.fit_rows) for fold in folds)
    report(BENCHMARK, f"leaks in {len(folds)} folds of {case}, {outside} rows made noise", len(found), "leaks",
           aim="0", met=not found)  # fmt: skip
