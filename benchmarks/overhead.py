"""What Dagster, Feast, DVC and MLflow add to the training of `etth1_xgboost`.

The job runs as a user runs it, `dagster job execute` in a fresh state folder. The peer does the same work without the
platform around it, also as a process of its own: read the CSV, fold, tune, refit, score and compare with the baselines.
Needs `MLPLATFORM_DATA_DIR` with ETTh1.csv. Run as `python benchmarks/overhead.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import report

EXPERIMENT = "etth1_xgboost"
AIM = 1.3


def main() -> None:
    """Time the peer, the first job in a fresh state folder, and a second one."""
    if "MLPLATFORM_DATA_DIR" not in os.environ:
        sys.exit("MLPLATFORM_DATA_DIR must name the folder with ETTh1.csv")
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "MLPLATFORM_HOME": home, "DAGSTER_HOME": f"{home}/dagster"}
        Path(home, "dagster").mkdir()
        dagster = str(Path(sys.executable).with_name("dagster"))
        job = [dagster, "job", "execute", "-m", "mlplatform.definitions", "-j", f"train_{EXPERIMENT}"]
        pure_s, output = _timed([sys.executable, __file__, "--pure"], environment)
        fit_s = json.loads(output.splitlines()[-1])["fit_seconds"]
        first_s, _ = _timed(job, environment)
        second_s, _ = _timed(job, environment)
        for case, seconds in (("first job in a fresh state folder", first_s), ("second job", second_s)):
            aim = {"aim": f"<= {AIM}"}
            report(
                "overhead",
                case,
                seconds,
                "s",
                peer="no platform",
                peer_value=pure_s,
                met=seconds <= AIM * pure_s,
                **aim,
            )
            report(
                "overhead",
                case,
                seconds,
                "s",
                peer="fitting alone",
                peer_value=fit_s,
                met=seconds <= AIM * fit_s,
                **aim,
            )


def _timed(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(
            f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
    return seconds, done.stdout


def pure() -> None:
    """Train without Dagster, Feast, DVC and MLflow, and print the seconds spent fitting."""
    import pandas as pd

    from mlplatform.candidates import train_candidate
    from mlplatform.config import ENTITY, TIMESTAMP, load_experiment
    from mlplatform.datamodule import create_data_module
    from mlplatform.training import fit_preprocessor, prepare_fold

    config = load_experiment(EXPERIMENT)
    frame = pd.read_csv(Path(os.environ["MLPLATFORM_DATA_DIR"], "ETTh1.csv"))
    frame = frame.rename(columns={"date": TIMESTAMP}).assign(**{ENTITY: 1})
    frame[TIMESTAMP] = pd.to_datetime(frame[TIMESTAMP], utc=True)
    split = config.split
    assert split.train_steps is not None
    assert split.reference_steps is not None
    borders = [split.train_steps, split.train_steps + split.reference_steps]
    borders.append(borders[-1] + split.test_steps["standard"])

    def held_out(first: int, after: int) -> pd.DataFrame:
        rows = frame.iloc[first - split.context_steps : after]
        return rows.assign(is_context=rows.index < first)

    train = create_data_module(config, frame.iloc[: borders[0]])
    parts = {
        "reference": create_data_module(config, held_out(borders[0], borders[1])),
        "test_standard": create_data_module(config, held_out(borders[1], borders[2])),
    }
    folds = [
        prepare_fold(f"fold_{k}", train, fold, fit_preprocessor(train, fold.fit_rows))
        for k, fold in enumerate(train.folds())
    ]
    with tempfile.TemporaryDirectory() as folder:
        candidate = train_candidate(config, train, folds, parts, Path(folder) / "study.journal")
    print(json.dumps({"fit_seconds": candidate.report.fit_seconds}))


if __name__ == "__main__":
    pure() if "--pure" in sys.argv else main()
