"""What a person waits for: the command's help, `status`, the server's page, and the demo as a whole.

The demo runs first, in a fresh state folder, and what it leaves is what the others look at. Each command is a process
of its own; beside its seconds stand those of a process that only imports what cannot be spared, and the seconds of
processor that it took, which a busy machine changes less. Run as `python benchmarks/front_door.py`; two minutes on two
quiet cores, more on busy ones. With `MLPLATFORM_HOME` naming the folder of a demo that was run, that one is looked at.
"""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from figures import report
from prediction_server.servers import serving

RUNS = 9
REQUESTS = 200
HELP_AIM_S, STATUS_AIM_S, PAGE_AIM_S, DEMO_AIM_S = 0.3, 2.0, 0.1, 60.0
COMMAND = [sys.executable, "-m", "mlplatform.cli"]
# Command -> aim in seconds, and the import that its module cannot do without.
COMMANDS = {"--help": (HELP_AIM_S, "typer"), "status": (STATUS_AIM_S, "pandas, pydantic")}


def main() -> None:
    """Run the demo, unless there is one, then look at everything else."""
    with contextlib.ExitStack() as stack:
        if "MLPLATFORM_HOME" not in os.environ:
            home = stack.enter_context(tempfile.TemporaryDirectory())
            os.environ["MLPLATFORM_HOME"] = home
            _report_demo()
        for command, (aim_s, imports) in COMMANDS.items():
            _report_command(command, aim_s, imports)
        with serving([sys.executable, "-m", "serving.local", "--port", "{port}"], "/health/ready") as server:
            _report_page(server.url)


def _report_demo() -> None:
    folder = Path(os.environ["MLPLATFORM_HOME"], "dagster")
    os.environ["DAGSTER_HOME"] = str(folder)
    folder.mkdir(parents=True)
    wall_s, processor_s = _seconds([sys.executable, "-m", "mlplatform.demo"])
    report("front_door", "make demo", wall_s, "s", aim=f"<= {DEMO_AIM_S:g}", met=wall_s <= DEMO_AIM_S)
    report("front_door", "make demo, of processor", processor_s, "s")


def _report_command(command: str, aim_s: float, imports: str) -> None:
    ours, peers = list[tuple[float, float]](), list[tuple[float, float]]()
    for _ in range(RUNS):
        ours.append(_seconds([*COMMAND, command]))
        peers.append(_seconds([sys.executable, "-c", f"import {imports}"]))
    for place, case in enumerate((f"mlplatform {command}", f"mlplatform {command}, of processor")):
        mine, peer = (statistics.median(each[place] for each in times) for times in (ours, peers))
        report(
            "front_door",
            case,
            mine,
            "s",
            peer=f"import {imports}",
            peer_value=peer,
            aim=f"<= {aim_s:g}",
            met=mine <= aim_s,
        )


def _report_page(address: str) -> None:
    """Time the page with all that it asks for before it shows the models."""
    script = ["/", "/page/page.js", "/page/page.css"]
    asked = [*script, "/models", "/metrics", "/models/fleet_xgboost/drift"]
    for case, paths in (("page", ["/"]), ("page, its files and all that it shows of the models", asked)):
        times = []
        for _ in range(REQUESTS):
            started = time.perf_counter()
            for path in paths:
                with urllib.request.urlopen(address + path) as response:
                    response.read()
            times.append(time.perf_counter() - started)
        median = statistics.median(times)
        report("front_door", case, median, "s", aim=f"<= {PAGE_AIM_S:g}", met=median <= PAGE_AIM_S)


def _seconds(command: list[str]) -> tuple[float, float]:
    """Run a command; return the seconds it took, and those of processor, its children's included."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        output = f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        sys.exit(f"{' '.join(command)} ended with status {done.returncode}:\n{output}")
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
