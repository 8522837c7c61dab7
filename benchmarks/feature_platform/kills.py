"""kill -9 during ingest and during materialisation, at random moments: every row is there exactly once afterwards.

In each round new files arrive for 200 entities; a process that has already imported everything begins the step and is
killed after a random share of the time that the step takes undisturbed. The step is then run again to its end. At the
end the raw table must equal the rows that were written, and every online window the offline one, bit for bit.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlplatform.config import DatasetConfig
    from mlplatform.settings import Settings

ENTITIES = 200
DAYS = 30
ROUNDS = 10


def run() -> None:
    """Print how many rows were lost or doubled, and how many windows differ."""
    from figures import report

    from feature_platform.readings import write_readings

    rng = random.Random(0)  # noqa: S311  (moments, not secrets)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_readings(folder / "source", ENTITIES, 0, 24 * DAYS)
        usual = {step: _run(step, folder) for step in ("ingest", "online")}
        killed = dict.fromkeys(usual, 0)
        for round_number in range(ROUNDS):
            rows += write_readings(folder / "source", ENTITIES, 24 * (DAYS + round_number), 24)
            # Old rows come again as well, so that the step has work all over the table.
            write_readings(folder / "source" / f"again{round_number}", ENTITIES, 0, 24 * DAYS)
            for step in usual:
                killed[step] += _kill(step, folder, rng.uniform(0, usual[step]))
                _run(step, folder)
        found = json.loads(_child("verify", folder).communicate("go\n")[0].splitlines()[-1])
    for step, count in killed.items():
        report("kills", f"{step}: killed before its end, of {ROUNDS}", count, "times")
    lost, doubled = rows - found["keys"], found["rows"] - found["keys"]
    report("kills", "rows lost", lost, "rows", aim="0", met=lost == 0)
    report("kills", "rows doubled", doubled, "rows", aim="0", met=doubled == 0)
    report(
        "kills", "online windows unlike the offline ones", found["differ"], "windows", aim="0", met=not found["differ"]
    )


def _child(step: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, step, str(folder)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def _run(step: str, folder: Path) -> float:
    child = _child(step, folder)
    began = time.perf_counter()
    child.communicate("go\n")
    if child.returncode:
        raise RuntimeError(f"{step} ended with {child.returncode}")
    return time.perf_counter() - began


def _kill(step: str, folder: Path, after_s: float) -> bool:
    """Begin a step, kill it after a while, and tell whether it had not ended before."""
    child = _child(step, folder)
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()
    time.sleep(after_s)
    child.kill()
    return child.wait() != 0


def _step(step: str, folder: Path) -> None:
    """Import everything, wait for the word, and run one step in this process."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from feature_platform.readings import readings_dataset
    from mlplatform.data import ingest
    from mlplatform.features.feast import apply_dataset, open_store
    from mlplatform.features.online import materialize_online
    from mlplatform.features.tables import update_feature_table
    from mlplatform.settings import Settings

    dataset = readings_dataset(folder / "source")
    settings = Settings.from_env({"MLPLATFORM_HOME": str(folder / "home")})
    open_store(settings)
    print("ready", flush=True)
    sys.stdin.readline()
    if step == "ingest":
        ingest(dataset, settings)
    elif step == "online":
        update_feature_table(dataset, settings)
        apply_dataset(dataset, settings)
        materialize_online(dataset, settings, mode="incremental")
    else:
        print(json.dumps(_verify(dataset, settings)))


def _verify(dataset: DatasetConfig, settings: Settings) -> dict[str, int]:
    from mlplatform.data import read_raw
    from mlplatform.features.online import read_windows
    from mlplatform.features.retrieval import offline_windows
    from mlplatform.features.tables import entity_ranges

    raw = read_raw(dataset, settings)
    ids = entity_ranges(dataset, settings)["entity_id"].to_numpy()
    columns, steps = tuple(dataset.columns), dataset.window_steps
    online = read_windows(dataset, ids, columns, steps, settings)
    (offline,) = offline_windows(dataset, ids, ["now"], columns, steps, settings)
    ours, theirs = (panel.matrix(columns).reshape(len(ids), -1) for panel in (online, offline))
    return {
        "rows": len(raw),
        "keys": len(raw.drop_duplicates(["entity_id", "event_timestamp"])),
        "differ": sum(a.tobytes() != b.tobytes() for a, b in zip(ours, theirs, strict=True)),
    }


if __name__ == "__main__":
    _step(sys.argv[1], Path(sys.argv[2]))
