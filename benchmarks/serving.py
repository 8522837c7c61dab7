"""The prediction server in figures: `python benchmarks/serving.py [part ...]`; without a part, all of them.

rates     requests per second and CPU per request, beside `mlflow models serve` and a bare handler on the same model
peers     MLServer and BentoML with the same booster, in environments of their own below `PEERS_DIR`
overload  four hundred clients, idle connections and slow bodies: who is refused, how fast probes answer, recovery
swaps     an alias that moves all the time and is found by polling alone
soak      ten minutes of load (`SOAK_SECONDS`) with an alias move every 20 s: memory at start and end
ray       Ray Serve in both modes, beside chains that do nothing, with its defaults and its throughput-optimised flags
kills     Ray Serve replicas that are killed: one of two of each deployment, under load, and the only one of each
hang      a Redis server that is stopped: requests with rows of their own, requests for the store, recovery
arms      a challenger that answers half of the requests, or is asked in shadow, beside none

`MLPLATFORM_HOME` must name an installation in which `fleet_xgboost` and `diabetes_xgboost` were trained and promoted
(`make demo` and the job `train_diabetes_xgboost`). `SECONDS` and `ROUNDS` in the environment shorten or lengthen a run.
"""

from __future__ import annotations

import importlib
import sys

PARTS = ("rates", "peers", "overload", "swaps", "soak", "ray", "kills", "hang", "arms")


def main(parts: list[str]) -> int:
    """Run the named parts and return the exit status."""
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        print(f"unknown parts {', '.join(unknown)}; known: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    for part in parts or PARTS:
        importlib.import_module(f"prediction_server.{part}").run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
