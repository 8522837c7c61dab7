"""Cold import of the code location, which Dagster pays at every command, spawned step and sensor tick.

With the packaged experiments, and with fifty on ten datasets, of which the jobs are counted, too.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from figures import report

RUNS = 7
AIM_S = 3.0
DATASETS, FAMILIES = 10, ("xgboost_v1", "ridge_v1", "nlinear_v1", "catboost_v1", "lstm_v1")
EXPERIMENT = """# @package _global_
defaults: [/base/forecast, {{override /model: {model}}}, _self_]
name: {name}
dataset:
  name: {dataset}
  source: {{uri: {dataset}.csv}}
  time_column: day
  frequency: D
  columns: {{sold: {{min: 0}}}}
targets: [sold]
"""
COUNT = "from mlplatform.definitions import defs; print(len(defs.get_repository_def().job_names) - 1)"


def main() -> None:
    """Time the imports in turns, each in a process of its own, and report medians."""
    with tempfile.TemporaryDirectory() as place:
        fifty = _fifty(Path(place))
        cases = {
            "import mlplatform.definitions": ("import mlplatform.definitions", {}),
            "the same with fifty experiments": ("import mlplatform.definitions", fifty),
            "import dagster": ("import dagster", {}),
        }
        seconds: dict[str, list[float]] = {case: [] for case in cases}
        for _ in range(RUNS):
            for case, (program, environment) in cases.items():
                started = time.perf_counter()
                _run(program, environment)
                seconds[case].append(time.perf_counter() - started)
        ours, many, peer = (statistics.median(times) for times in seconds.values())
        named, of_fifty, _ = cases
        against = {"peer": "import dagster", "peer_value": peer}
        report("import_time", named, ours, "s", aim=f"< {AIM_S} s", met=ours < AIM_S, **against)
        report("import_time", of_fifty, many, "s", **against)
        # Beside the implicit job of all assets.
        report("import_time", "jobs of fifty experiments", int(_run(COUNT, fifty)), "jobs")


def _run(program: str, environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, check=True, capture_output=True, text=True
    )
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def _fifty(folder: Path) -> dict[str, str]:
    """Write fifty experiments; return the environment in which there are no others."""
    experiments = folder / "experiment"
    experiments.mkdir()
    for number in range(DATASETS):
        for model in FAMILIES:
            name = f"shop{number}_{model.removesuffix('_v1')}"
            text = EXPERIMENT.format(name=name, dataset=f"shop{number}", model=model)
            (experiments / f"{name}.yaml").write_text(text, encoding="utf-8")
    return {"MLPLATFORM_CONF_DIR": str(folder), "MLPLATFORM_EXAMPLES": "0"}


if __name__ == "__main__":
    main()
