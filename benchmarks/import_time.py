"""Cold import of the code location, which Dagster pays at every command, spawned step and sensor tick."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from figures import report

RUNS = 7
AIM_S = 3.0


def main() -> None:
    """Time both imports in turns, each in a process of its own, and report medians."""
    seconds: dict[str, list[float]] = {"mlplatform.definitions": [], "dagster": []}
    for _ in range(RUNS):
        for module, times in seconds.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True, capture_output=True)
            times.append(time.perf_counter() - started)
    ours, peer = (statistics.median(times) for times in seconds.values())
    case = "import mlplatform.definitions"
    report("import_time", case, ours, "s", peer="import dagster", peer_value=peer, aim=f"< {AIM_S} s", met=ours < AIM_S)


if __name__ == "__main__":
    main()
