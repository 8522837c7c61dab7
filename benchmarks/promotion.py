"""How often luck is promoted, and a truly better candidate: by the score alone, and with the evidence of a bootstrap.

White noise: fifteen candidates in turn whose answers differ by their seed alone are judged on one reference set of 240
rows, each against the champion of the time, and what was promoted is scored on 20,000 fresh rows. Better candidates:
their errors are five and ten percent smaller, on as many rows. The peer is the decision by the score alone, as
`min_probability` 0.5 makes it.

Run as `python benchmarks/promotion.py`; takes half a minute.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
from figures import report

from mlplatform.config import PromotionConfig
from mlplatform.plugins import METRICS
from mlplatform.promotion.bootstrap import Float64, compare_losses, row_units
from mlplatform.promotion.decision import Contender, decide_promotion

ROWS, FRESH, CANDIDATES, WORLDS = 240, 20_000, 15, 20
# How far the answers of two seeds are apart, in the spread of the noise.
SEED_SPREAD = 0.15
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Outcome:
    """Promotions in one world, and the champion's gain over the first: on the reference set, and truly."""

    promotions: int
    apparent: float
    true: float


def main() -> None:
    """Print all figures."""
    before, after = ([noise(world, least) for world in range(WORLDS)] for least in (0.5, 0.9))
    for name, unit in (
        ("promotions", "promotions of 15"),
        ("apparent", "share of the loss"),
        ("true", "share of the loss"),
    ):
        mean, peer = (float(np.mean([getattr(each, name) for each in all_])) for all_ in (after, before))
        report("promotion", f"white noise, {name}", mean, unit, peer="the score alone", peer_value=peer)
    for less in (0.05, 0.1):
        shares = [float(np.mean([better(world, less, least) for world in range(60)])) for least in (0.9, 0.5)]
        report(
            "promotion",
            f"{less:.0%} less error",
            shares[0],
            "share promoted",
            peer="the score alone",
            peer_value=shares[1],
        )


def noise(world: int, least: float) -> Outcome:
    """Judge candidates that differ in their seed alone."""
    rng = np.random.default_rng(world)
    truth = rng.normal(size=ROWS + FRESH)
    losses = [np.abs(truth - SEED_SPREAD * rng.normal(size=ROWS + FRESH)) for _ in range(CANDIDATES)]
    champion, promotions = losses[0], 0
    for candidate in losses[1:]:
        if promotes(candidate[:ROWS], champion[:ROWS], least):
            champion, promotions = candidate, promotions + 1
    first = losses[0]
    gains = [1 - float(champion[part].mean() / first[part].mean()) for part in (slice(ROWS), slice(ROWS, None))]
    return Outcome(promotions, *gains)


def better(world: int, less: float, least: float) -> bool:
    """Judge a candidate that errs less on average, on the same rows with answers of its own."""
    rng = np.random.default_rng(world)
    shared, own, other = rng.normal(size=(3, ROWS))
    errors = [np.abs(shared + 0.3 * each) for each in (own, other)]
    return promotes((1 - less) * errors[0], errors[1], least)


def promotes(candidate: Float64, champion: Float64, least: float) -> bool:
    """Return whether the gate's rules promote the candidate."""
    return decide_promotion(
        Contender(2, float(candidate.mean())),
        Contender(1, float(champion.mean())),
        {},
        "mae",
        METRICS.get("mae"),
        PromotionConfig(min_probability=least),
        NOW,
        comparison=compare_losses(candidate, champion, row_units(ROWS)),
    ).promote


if __name__ == "__main__":
    main()
