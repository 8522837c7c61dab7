"""`python -m mlplatform.monitoring.retraining <experiment> [overrides]`: any policy over the stored decisions."""

from __future__ import annotations

import argparse
import sys

from mlplatform.config import ConfigError, load_experiment
from mlplatform.monitoring.retraining.journal import Journal
from mlplatform.monitoring.retraining.replay import replay_policy
from mlplatform.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Print a line per decision, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mlplatform.monitoring.retraining", description=__doc__)
    parser.add_argument("experiment")
    parser.add_argument("overrides", nargs="*", help="of the policy, such as drift.retrain.confirm=1")
    parser.add_argument("--recorded-runs", action="store_true", help="keep the runs as they were")
    given = parser.parse_args(arguments)
    settings = Settings.from_env()
    try:
        policy = load_experiment(given.experiment, given.overrides, settings).drift
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    history = list(Journal(settings, given.experiment).read())
    replayed = replay_policy(history, policy, runs="recorded" if given.recorded_runs else "own")
    for each in replayed:
        at = each.at.isoformat(timespec="seconds")
        sys.stdout.write(f"{at}  {each.then.outcome:<11} {each.now.outcome:<11} {each.now.reason}\n")
    then, now = (sum(each.then.asks for each in replayed), sum(each.now.asks for each in replayed))
    sys.stdout.write(f"{len(replayed)} decisions; runs asked for then: {then}, by this policy: {now}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
