"""Scores of the tabular experiments on scikit-learn's diabetes and breast cancer, by their own nested cross-validation.

What runs is the platform's training procedure with the shipped configuration: on the training part of each of five
outer folds it searches on inner folds, refits, and is scored on the held-out rows, which nothing before the score has
seen. The linear baseline is fitted and scored on the same rows. A figure is the median, over three shuffles of the
rows, of the mean over the outer folds. Searches are cut to fewer trials than the experiments have.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from figures import report

from modelling_core.nested import read

BENCHMARK = "tabular_scores"
SHUFFLES, OUTER, WORKERS = 3, 5, 2
# Data set -> the score to report, what it should reach, and the number of trials; the slowest experiments come first,
# so that no worker is left with one at the end.
DATA_SETS = {"breast_cancer": ("accuracy", 0.97, 4), "diabetes": ("r2", 0.47, 15)}
# Forests are here to compare: as configured, for a search gains them little and takes long.
TUNED, COMPARED = ("catboost", "xgboost"), "random_forest"

# An experiment, its number of trials, and the seed of the shuffle and the search.
Job = tuple[str, int, int]


def main() -> None:
    """Report the median scores of every experiment, with its first trial alone and tuned, and of the linear model."""
    started = time.perf_counter()
    jobs = [(experiment, trials, shuffle) for data in DATA_SETS for experiment, trials in _runs(data)
            for shuffle in range(SHUFFLES)]  # fmt: skip
    with ProcessPoolExecutor(WORKERS) as pool:
        found = dict(zip(jobs, pool.map(nested_scores, jobs), strict=True))
    for data, (score, least, _) in DATA_SETS.items():
        linear = _median(found, f"{data}_xgboost", 1, "linear")
        report(BENCHMARK, f"{data}, linear", linear, score)
        for experiment, trials in _runs(data):
            value, tuned = _median(found, experiment, trials, "procedure"), trials > 1
            report(BENCHMARK, f"{experiment}, {f'{trials} trials' if tuned else 'as configured'}", value, score,
                   peer="linear", peer_value=linear, aim=f"at least {least}" if tuned else None,
                   met=value >= least if tuned else None)  # fmt: skip
    report(BENCHMARK, f"all, {WORKERS} processes", time.perf_counter() - started, "s")


def nested_scores(job: Job) -> dict[str, float]:
    """Return the mean over the outer folds of the procedure's score and of the linear baseline's."""
    from mlplatform.candidates import outer_folds, score_outer_fold

    experiment, trials, seed = job
    module = read(experiment, [f"tuning.trials={trials}", f"++nested.outer_folds={OUTER}", f"split.seed={seed}",
                               f"++seed={seed}"])  # fmt: skip
    score = next(score for data, (score, _, _) in DATA_SETS.items() if experiment.startswith(data))
    # Where a fold loses to a baseline, the figures say so.
    quiet = logging.Logger(BENCHMARK, logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        results = [
            score_outer_fold(f"outer_{k}", module, fold, Path(folder) / str(k), quiet)
            for k, fold in enumerate(outer_folds(module))
        ]
    return {
        "procedure": statistics.mean(result.outer[score] for result in results),
        "linear": statistics.mean(result.baselines["linear"][score] for result in results),
    }


def _runs(data: str) -> list[tuple[str, int]]:
    """Return experiments with the numbers of trials to run them with."""
    tuned = [(f"{data}_{learner}", trials) for learner in TUNED for trials in (DATA_SETS[data][2], 1)]
    return [*tuned, (f"{data}_{COMPARED}", 1)]


def _median(found: dict[Job, dict[str, float]], experiment: str, trials: int, which: str) -> float:
    return statistics.median(found[experiment, trials, shuffle][which] for shuffle in range(SHUFFLES))
