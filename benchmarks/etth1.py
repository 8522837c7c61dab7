"""Scores of the ETTh1 experiments through the platform's own jobs, beside baselines and published figures.

Runs `dagster job execute` for every experiment named on the command line (default: all eight) in one fresh state
folder, and reads the scores from MLflow. Published: NLinear, H=96, multivariate, MSE 0.374 in train-scaled space on the
12/4/4-month borders (Zeng et al., AAAI 2023). Needs `MLPLATFORM_DATA_DIR` with ETTh1.csv.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import report

PUBLISHED, TOLERANCE = 0.374, 0.006
EXPERIMENTS = tuple(
    f"etth1_{family}{variant}" for family in ("nlinear", "xgboost") for variant in ("", "_h96", "_m", "_h96_m")
)
SHOWN = ("cv_mae_mean", "cv_mae_std", "reference_mae", "test_standard_mae", "test_standard_mse_scaled")


def main() -> None:
    """Train and report."""
    if "MLPLATFORM_DATA_DIR" not in os.environ:
        sys.exit("MLPLATFORM_DATA_DIR must name the folder with ETTh1.csv")
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"MLPLATFORM_HOME": home, "DAGSTER_HOME": f"{home}/dagster"}
        Path(home, "dagster").mkdir()
        for experiment in sys.argv[1:] or EXPERIMENTS:
            _train_and_report(experiment)


def _train_and_report(experiment: str) -> None:
    from mlplatform.registry.pairs import LATEST, PairStore
    from mlplatform.settings import Settings

    dagster = str(Path(sys.executable).with_name("dagster"))
    started = time.perf_counter()
    job = [dagster, "job", "execute", "-m", "mlplatform.definitions", "-j", f"train_{experiment}"]
    done = subprocess.run(job, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"train_{experiment} ended with status {done.returncode}:\n{done.stderr[-4000:]}")
    seconds = time.perf_counter() - started
    store = PairStore(Settings.from_env())
    metrics = store.client.get_run(store.resolve(experiment, LATEST).run_id).data.metrics
    report("etth1", f"{experiment} job", seconds, "s", peer="fitting alone", peer_value=metrics["fit_seconds"])
    folds = sorted(name for name in metrics if name.startswith("fold_") and name.endswith("_mae"))
    for name in (*folds, *SHOWN):
        for baseline in ("repeat_last", "seasonal_naive", "ridge"):
            peer_value = metrics[f"baseline_{baseline}_{name}"]
            report("etth1", f"{experiment} {name}", metrics[name], "", peer=baseline, peer_value=peer_value)
    if experiment == "etth1_nlinear_h96_m":
        name = "test_standard_mse_scaled"
        ridge, ours = metrics[f"baseline_ridge_{name}"], metrics[name]
        aim = f"{PUBLISHED} +- {TOLERANCE}"
        met = abs(ours - PUBLISHED) <= TOLERANCE
        report("etth1", f"{experiment} {name}", ours, "", peer="published", peer_value=PUBLISHED, aim=aim, met=met)
        report("etth1", f"ridge {name}", ridge, "", peer="NLinear here", peer_value=ours, aim="<= 1", met=ridge <= ours)


if __name__ == "__main__":
    main()
