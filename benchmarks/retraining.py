"""A daemon that is killed again and again: how many training runs does one drift lead to?

Every round is an installation of its own with a drift report that asks for a training. Dagster's sensor daemon is
killed (SIGKILL) at a random moment between tick, decision, request and run, comes back, may be killed once more, and
then lives. The runs that Dagster knows afterwards are counted. Run as `python benchmarks/retraining.py`; 20 rounds take
two minutes on two cores.
"""

from __future__ import annotations

import argparse
import datetime as dt
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from figures import report

from mlplatform.monitoring import write_report
from mlplatform.testing.daemon import MOMENTS, run_daemon
from mlplatform.testing.drift_reports import yard_report
from mlplatform.testing.yard import Yard, write_conf


def watched(folder: Path) -> Path:
    """Return an installation whose drift sensor is on and has a reason to ask for a run."""
    drift = {"retrain": {"confirm": 1}}
    write_conf(
        folder / "conf",
        experiment={"drift": drift, "automation": {"running": ["drift"], "drift_interval_s": 5}},
    )
    drifted = yard_report(
        created_at=dt.datetime.now(dt.UTC).isoformat(),
    )
    write_report(drifted, Yard.at(folder).settings)
    return folder


def runs_after(folder: Path, moments: list[str]) -> int:
    """Kill the daemon at each of these moments, let it live then, and return how many runs there are."""
    minute = 0
    for moment in moments:
        # It may have nothing left to do at that moment, and live.
        run_daemon(folder, minute, die_at=moment)
        minute += 1
    run_daemon(folder, minute, minute + 1)
    with Yard.at(folder).instance as instance:
        return len(instance.get_runs())


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    generator = random.Random(asked.seed)  # noqa: S311 - no secret
    counts: Counter[int] = Counter()
    with tempfile.TemporaryDirectory(prefix="mlplatform-retraining-") as place:
        plain = watched(Path(place) / "plain")
        for number in range(asked.rounds):
            folder = Path(place) / str(number)
            shutil.copytree(plain, folder)
            moments = generator.choices(MOMENTS, k=generator.choice((1, 2)))
            counts[runs_after(folder, moments)] += 1
            shutil.rmtree(folder)
    case = f"rounds of a killed daemon that led to exactly one training, of {asked.rounds}"
    met = counts[1] == asked.rounds
    report("retraining", case, counts[1], "rounds", aim=f"{asked.rounds}", met=met)


if __name__ == "__main__":
    main()
