"""The promotion decision: a pure function of scores, policy and time."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mlplatform.config import PromotionConfig
from mlplatform.training.metrics import Metric

Outcome = Literal["first", "better", "current", "not_better", "baseline", "cooldown", "older", "incomparable"]


@dataclass(frozen=True)
class Contender:
    """A registered pair with its score on the reference set.

    Attributes:
        version: version number of the pair.
        score: the deciding metric, in original units; None if it cannot be scored on this reference set.
        promoted_at: when it became the champion; None for a candidate.
        obstacle: why it cannot be scored, if it cannot.
    """

    version: int
    score: float | None
    promoted_at: dt.datetime | None = None
    obstacle: str = ""


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and why.

    Attributes:
        promote: whether the candidate becomes the champion.
        outcome: the rule that decided.
        reason: one sentence for people.
    """

    promote: bool
    outcome: Outcome
    reason: str
    candidate: Contender
    champion: Contender | None
    metric: str
    baselines: Mapping[str, float] = field(default_factory=dict)


def decide_promotion(
    candidate: Contender,
    champion: Contender | None,
    baselines: Mapping[str, float],
    metric_name: str,
    metric: Metric,
    policy: PromotionConfig,
    now: dt.datetime,
) -> Decision:
    """Decide whether `candidate` replaces `champion`.

    Parameters:
        candidate: with its score on the reference set.
        champion: with its score on the same reference set; None if there is none yet.
        baselines: the same metric for every naive baseline.
        now: the current time, with time zone.

    A score that is not finite counts as none: NaN compares as false with everything, so it must not reach a comparison.
    """

    def decision(promote: bool, outcome: Outcome, reason: str) -> Decision:
        return Decision(promote, outcome, reason, candidate, champion, metric_name, baselines)

    if candidate.score is None or not math.isfinite(candidate.score):
        return decision(False, "incomparable", f"version {candidate.version} cannot be scored: {_obstacle(candidate)}")
    if champion is not None and champion.version == candidate.version:
        return decision(False, "current", f"version {candidate.version} is in production already")
    if champion is not None and champion.version > candidate.version:
        return decision(
            False, "older", f"version {candidate.version} is older than the champion, version {champion.version}"
        )
    loss = metric.loss(candidate.score)
    if policy.must_beat_baselines:
        for name, score in baselines.items():
            if not loss < metric.loss(score):
                return decision(
                    False,
                    "baseline",
                    f"{metric_name} {candidate.score:.6g} does not beat the baseline {name} with {score:.6g}",
                )
    if champion is None:
        beaten = " beats the baselines" if policy.must_beat_baselines and baselines else ""
        return decision(True, "first", f"{metric_name} {candidate.score:.6g}{beaten}; there is no champion yet")
    if champion.score is None or not math.isfinite(champion.score):
        return decision(
            False,
            "incomparable",
            f"the champion, version {champion.version}, cannot be compared: {_obstacle(champion)}",
        )
    champion_loss = metric.loss(champion.score)
    needed = champion_loss - policy.margin * abs(champion_loss)
    if not (loss < champion_loss and loss <= needed):
        margin = f" by the margin of {policy.margin:.2%}" if policy.margin else ""
        return decision(
            False,
            "not_better",
            f"{metric_name} {candidate.score:.6g} does not beat version {champion.version} with "
            f"{champion.score:.6g}{margin}",
        )
    if champion.promoted_at is not None:
        waited = (now - champion.promoted_at).total_seconds() / 3600
        if waited < policy.cooldown_hours:
            return decision(
                False,
                "cooldown",
                f"version {champion.version} was promoted {waited:.1f} h ago, and the policy asks for "
                f"{policy.cooldown_hours:g} h between promotions",
            )
    return decision(
        True,
        "better",
        f"{metric_name} {candidate.score:.6g} beats version {champion.version} with {champion.score:.6g}",
    )


def _obstacle(contender: Contender) -> str:
    return contender.obstacle if contender.score is None else f"its score is {contender.score}"
