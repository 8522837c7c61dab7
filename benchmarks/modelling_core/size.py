"""Cost against size: fitting XGBoost and NLinear on 1 to 1,000 entities of 17,420 hours.

Each fit runs in a process of its own, whose peak memory is that of the case. Beside the time of a fit stands ten times
that of a tenth of the entities, beside its memory the bytes that the samples themselves hold: where the ratios stay
level, cost grows linearly. Runs as long as its largest case: `python benchmarks/modelling.py size`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

HOURS, LOOKBACK = 17_420, 48
SIZES = (1, 10, 100, 1_000)
LIMIT_GB, LIMIT_S = 16, 900
HORIZONS = {"xgboost": 2, "nlinear": 24}
PARAMS: dict[str, dict[str, Any]] = {
    "xgboost": {"num_boost_round": 5, "target_lags": (1, 2, 24), "target_means": (24,)},
    "nlinear": {"max_epochs": 1, "batch_size": 4096},
}


def main() -> None:
    """Print seconds and peak memory of every case, and what they grow by."""
    from figures import report

    for family in PARAMS:
        before: dict[str, float] | None = None
        for entities in SIZES:
            name = f"{family}, {entities:,} entities x {HOURS:,} hours"
            command = [sys.executable, "-W", "ignore", str(Path(__file__)), family, str(entities)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
            except subprocess.TimeoutExpired:
                report("size", f"{name}: fit", LIMIT_S, "s", aim=f"less than {LIMIT_S}", met=False)
                break
            if done.returncode:
                sys.exit(f"{name} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
            case = json.loads(done.stdout)
            tenfold = None if before is None else 10 * before["seconds"]
            report("size", f"{name}: fit", case["seconds"], "s",
                   peer=None if before is None else "ten times the tenth", peer_value=tenfold)  # fmt: skip
            report("size", f"{name}: windows", case["windows"] / case["seconds"], "1/s")
            report("size", f"{name}: peak memory above the imports", case["grown_gb"], "GB",
                   peer="the samples themselves", peer_value=case["samples_gb"])  # fmt: skip
            report("size", f"{name}: peak memory", case["peak_gb"], "GB", aim=f"less than {LIMIT_GB}",
                   met=case["peak_gb"] < LIMIT_GB)  # fmt: skip
            before = case


def _fit(family: str, entities: int) -> None:
    """Fit one case and print its figures; runs in a process of its own."""
    from mlplatform.datamodule import ModelSpec, WindowSamples
    from mlplatform.models import FitOptions, create_model
    from mlplatform.training import trainer_for

    horizon = HORIZONS[family]
    spec = ModelSpec("forecast", ("load",), (0,), LOOKBACK, horizon, step_seconds=3600)

    def fit(count: int) -> tuple[WindowSamples, float]:
        timestamps, values, origins = _series(count, horizon)
        samples = WindowSamples(values, timestamps, origins, ("load",), (0,), LOOKBACK, horizon, step_seconds=3600)
        model = create_model(family, PARAMS[family], spec)
        started = time.perf_counter()
        trainer_for(model).fit(model, samples, None, FitOptions())
        return samples, time.perf_counter() - started

    # A small fit first: it loads the libraries and takes what a first call takes.
    fit(1)
    imported_gb = peak_gb()
    limit = LIMIT_GB * 2**30
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    samples, seconds = fit(entities)
    own = sum(array.nbytes for array in (samples.values, samples.timestamps, samples.origins))
    peak = peak_gb()
    figures = {"seconds": seconds, "windows": len(samples), "peak_gb": peak, "samples_gb": own / 2**30}
    print(json.dumps({**figures, "grown_gb": peak - imported_gb}))


def _series(entities: int, horizon: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times, values (a season on a random walk) and the origins of all windows, entity after entity."""
    noise = np.random.default_rng(entities)
    hours = np.arange(HOURS)
    season = np.sin(hours * (2 * np.pi / 24))
    values = np.empty((entities * HOURS, 1), dtype=np.float32)
    for entity in range(entities):
        walk = noise.standard_normal(HOURS).cumsum() * 0.1
        values[entity * HOURS : (entity + 1) * HOURS, 0] = season + walk
    times = np.tile(np.datetime64("2016-07-01", "ns") + hours * np.timedelta64(1, "h"), entities)
    own = np.arange(LOOKBACK - 1, HOURS - horizon)
    origins = (np.arange(entities)[:, None] * HOURS + own).reshape(-1)
    return times, values, origins


def peak_gb() -> float:
    """Return the peak memory of this process: unlike `getrusage`'s, not that of the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


if __name__ == "__main__":
    _fit(sys.argv[1], int(sys.argv[2]))
