"""Ingest of 1,000 entities x 17,420 hours from a folder of Parquet files, then of one more day.

Each step runs in a process of its own, whose peak memory is that of the step. The limit beside the ingest is DuckDB
sorting the same files by entity and time into one file per month, without checking anything. Beside the extra day stand
the first ingest and the same day added to a table of a tenth of the history.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ENTITIES = 1_000
DAY = 24
STEPS = ("ingest", "features", "online")


def run() -> None:
    """Print the figures of ingest and of one more day."""
    from figures import report

    from feature_platform.readings import HOURS

    _, more_of_tenth, _ = _measure_history(HOURS // 10)
    first, more, sort_s = _measure_history(HOURS)
    name = f"{ENTITIES:,} entities x {HOURS:,} hours"
    rates = [ENTITIES * HOURS / seconds for seconds in (first["ingest"]["seconds"], sort_s)]
    report("growth", f"ingest {name}, validated", rates[0], "rows/s", peer="DuckDB sort", peer_value=rates[1])
    for step in STEPS:
        report("growth", f"{step} {name}: peak memory", first[step]["peak_gb"], "GB")
        report("growth", f"{step} {name}", first[step]["seconds"], "s")
    for step in STEPS:
        case, seconds = f"{step} of one more day ({ENTITIES * DAY:,} rows)", more[step]["seconds"]
        report("growth", case, seconds, "s", peer="the whole table", peer_value=first[step]["seconds"])
        tenth = more_of_tenth[step]["seconds"]
        report("growth", case, seconds, "s", peer="the same on a tenth of the history", peer_value=tenth)


def _measure_history(hours: int) -> tuple[dict[str, Any], dict[str, Any], float]:
    """Return what every step took for the whole history and for one more day, and what DuckDB's sort took."""
    from feature_platform.readings import write_readings

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "source"
        write_readings(source, ENTITIES, 0, hours)
        first = {step: _measure(step, folder) for step in STEPS}
        sort_s = _duckdb_sort(source, folder / "sorted")
        write_readings(source, ENTITIES, hours, DAY)
        return first, {step: _measure(step, folder) for step in STEPS}, sort_s


def _measure(step: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, step, str(folder)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def _duckdb_sort(source: Path, target: Path) -> float:
    import duckdb

    began = time.perf_counter()
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT *, strftime(time, '%Y-%m') AS month FROM '{source}/*.parquet' "  # noqa: S608  (own path)
            f"ORDER BY month, unit, time) TO '{target}' (FORMAT parquet, PARTITION_BY (month))"
        )
    return time.perf_counter() - began


def _step(step: str, folder: Path) -> None:
    """Run one step in this process and print what it took."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from feature_platform.readings import readings_dataset
    from mlplatform.data import ingest
    from mlplatform.features.feast import apply_dataset
    from mlplatform.features.online import materialize_online
    from mlplatform.features.tables import update_feature_table
    from mlplatform.settings import Settings

    dataset = readings_dataset(folder / "source")
    settings = Settings.from_env({"MLPLATFORM_HOME": str(folder / "home")})
    if step == "online":
        apply_dataset(dataset, settings)
    began = time.perf_counter()
    if step == "ingest":
        ingest(dataset, settings)
    elif step == "features":
        update_feature_table(dataset, settings)
    else:
        materialize_online(dataset, settings, mode="incremental")
    print(json.dumps({"seconds": time.perf_counter() - began, "peak_gb": _peak_gb()}))


def _peak_gb() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


if __name__ == "__main__":
    _step(*sys.argv[1:2], Path(sys.argv[2]))
