"""The promotion decision: one row per rule, and no way around a score that is not a number."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import pytest

from mlplatform.config import PromotionConfig
from mlplatform.plugins import METRICS
from mlplatform.promotion.bootstrap import Comparison
from mlplatform.promotion.decision import (
    Before,
    Contender,
    Decision,
    Reference,
    Retraining,
    decide_promotion,
)

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
NAN = float("nan")


def decide(
    candidate: float | None,
    champion: float | None = None,
    *,
    versions: tuple[int, int] = (2, 1),
    has_champion: bool = True,
    baselines: dict[str, float] | None = None,
    metric: str = "mae",
    promoted_hours_ago: float | None = None,
    data_until: tuple[dt.datetime | None, dt.datetime | None] = (None, None),
    reference_rows: int = 100,
    **policy: Any,
) -> Decision:
    promoted_at = None if promoted_hours_ago is None else NOW - dt.timedelta(hours=promoted_hours_ago)
    obstacle = "" if champion is not None else "it predicts 12 steps"
    rival = Contender(versions[1], champion, promoted_at, obstacle, data_until[1])
    obstacle = "" if candidate is not None else "it needs more rows"
    return decide_promotion(
        candidate=Contender(versions[0], candidate, None, obstacle, data_until[0]),
        champion=rival if has_champion else None,
        baselines=baselines or {},
        metric_name=f"reference_{metric}",
        metric=METRICS.get(metric),
        policy=PromotionConfig(**policy),
        now=NOW,
        reference=Reference("pump_v1", "0" * 64, reference_rows),
    )


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        # The first champion has to beat the baselines only.
        ({"candidate": 1.0, "has_champion": False}, "first"),
        ({"candidate": 1.0, "has_champion": False, "baselines": {"repeat_last": 1.1}}, "first"),
        ({"candidate": 1.0, "has_champion": False, "baselines": {"repeat_last": 0.9}}, "baseline"),
        # Later ones have to be strictly better than the champion.
        ({"candidate": 1.0, "champion": 1.1}, "better"),
        ({"candidate": 1.1, "champion": 1.1}, "not_better"),
        ({"candidate": 1.2, "champion": 1.1}, "not_better"),
        # By the margin, which may be met exactly.
        ({"candidate": 0.95, "champion": 1.0, "margin": 0.1}, "not_better"),
        ({"candidate": 0.875, "champion": 1.0, "margin": 0.125}, "better"),
        ({"candidate": 0.0, "champion": 0.0, "margin": 0.1}, "not_better"),
        # And better than every baseline, whatever the champion does.
        ({"candidate": 1.0, "champion": 2.0, "baselines": {"repeat_last": 3.0, "seasonal_naive": 1.0}}, "baseline"),
        (
            {"candidate": 1.0, "champion": 2.0, "baselines": {"repeat_last": 0.5}, "must_beat_baselines": False},
            "better",
        ),
        # The cool-down runs from the champion's promotion and ends to the second.
        ({"candidate": 1.0, "champion": 2.0, "promoted_hours_ago": 23.9, "cooldown_hours": 24}, "cooldown"),
        ({"candidate": 1.0, "champion": 2.0, "promoted_hours_ago": 24.0, "cooldown_hours": 24}, "better"),
        ({"candidate": 1.0, "champion": 2.0, "promoted_hours_ago": None, "cooldown_hours": 24}, "better"),
        # Worse is worse, cool-down or not.
        ({"candidate": 3.0, "champion": 2.0, "promoted_hours_ago": 1.0, "cooldown_hours": 24}, "not_better"),
        # The pointer never moves back, however good the score.
        ({"candidate": 0.1, "champion": 2.0, "versions": (1, 2)}, "older"),
        ({"candidate": 0.1, "champion": 2.0, "versions": (2, 2)}, "current"),
        ({"candidate": 0.1, "champion": 2.0, "versions": (1, 2), "never_older": False}, "better"),
        # Nor to training rows that end earlier; rows up to the same moment, or up to an unknown one, are not older.
        ({"candidate": 0.1, "champion": 2.0, "data_until": (NOW - HOUR, NOW)}, "older"),
        ({"candidate": 0.1, "champion": 2.0, "data_until": (NOW - HOUR, NOW), "never_older": False}, "better"),
        ({"candidate": 0.1, "champion": 2.0, "data_until": (NOW, NOW)}, "better"),
        ({"candidate": 0.1, "champion": 2.0, "data_until": (None, NOW)}, "better"),
        # Few rows prove nothing.
        ({"candidate": 0.1, "champion": 2.0, "min_reference_rows": 101}, "too_little_data"),
        ({"candidate": 0.1, "has_champion": False, "min_reference_rows": 101}, "too_little_data"),
        ({"candidate": 0.1, "champion": 2.0, "min_reference_rows": 100}, "better"),
        # What cannot be scored is neither promoted nor replaced.
        ({"candidate": None, "champion": 2.0}, "incomparable"),
        ({"candidate": None, "has_champion": False}, "incomparable"),
        ({"candidate": 1.0, "champion": None}, "incomparable"),
        # Greater is better.
        ({"candidate": 0.9, "champion": 0.8, "metric": "r2"}, "better"),
        ({"candidate": 0.8, "champion": 0.9, "metric": "r2"}, "not_better"),
        ({"candidate": 0.84, "champion": 0.8, "metric": "accuracy", "margin": 0.1}, "not_better"),
        ({"candidate": 0.9, "champion": 0.8, "metric": "accuracy", "margin": 0.1}, "better"),
        ({"candidate": 0.7, "has_champion": False, "metric": "accuracy", "baselines": {"dummy": 0.75}}, "baseline"),
        ({"candidate": -0.4, "champion": -0.5, "metric": "r2", "margin": 0.1}, "better"),
        ({"candidate": -0.48, "champion": -0.5, "metric": "r2", "margin": 0.1}, "not_better"),
    ],
)
def test_the_rule_that_decides(arguments: dict[str, Any], outcome: str) -> None:
    decision = decide(**arguments)
    assert decision.outcome == outcome
    assert decision.promote is (outcome in ("first", "better"))
    assert decision.reason


@pytest.mark.parametrize("metric", ["mae", "r2"])
@pytest.mark.parametrize("score", [NAN, math.inf, -math.inf])
@pytest.mark.parametrize("has_champion", [False, True])
@pytest.mark.parametrize("must_beat_baselines", [False, True])
def test_a_candidate_without_a_finite_score_is_never_promoted(
    metric: str, score: float, has_champion: bool, must_beat_baselines: bool
) -> None:
    decision = decide(score, 1.0, metric=metric, has_champion=has_champion, must_beat_baselines=must_beat_baselines)
    assert (decision.promote, decision.outcome) == (False, "incomparable")
    assert "version 2" in decision.reason


@pytest.mark.parametrize("champion", [NAN, math.inf, -math.inf])
def test_a_champion_without_a_finite_score_is_not_replaced_by_comparison(champion: float) -> None:
    decision = decide(1.0, champion)
    assert (decision.promote, decision.outcome) == (False, "incomparable")
    assert "version 1" in decision.reason


@pytest.mark.parametrize("metric", ["mae", "r2"])
def test_a_baseline_that_is_not_a_number_cannot_be_beaten(metric: str) -> None:
    decision = decide(1.0, has_champion=False, baselines={"repeat_last": NAN}, metric=metric)
    assert (decision.promote, decision.outcome) == (False, "baseline")


def test_reasons_name_the_metric_the_versions_and_the_numbers() -> None:
    better = decide(1.0, 1.25).reason
    assert all(part in better for part in ("reference_mae", "1.25", "version 1"))
    assert "10.00%" in decide(1.0, 1.05, margin=0.1).reason
    waiting = decide(1.0, 2.0, promoted_hours_ago=1.5, cooldown_hours=24).reason
    assert "1.5 h ago" in waiting
    assert "24 h" in waiting
    assert "seasonal_naive with 0.5" in decide(1.0, has_champion=False, baselines={"seasonal_naive": 0.5}).reason
    assert "it needs more rows" in decide(None, 1.0).reason
    assert "it predicts 12 steps" in decide(1.0, None).reason


def test_every_baseline_is_named_with_its_outcome() -> None:
    decision = decide_promotion(
        Contender(1, 1.0), None, {"repeat_last": 2.0, "seasonal_naive": 3.0}, "mae", METRICS.get("mae"),
        PromotionConfig(), NOW, others={"ridge": 0.5, "linear": 4.0, "broken": NAN},
    )  # fmt: skip
    assert decision.promote
    assert decision.reason == (
        "mae 1 beats the baselines repeat_last with 2 and seasonal_naive with 3 and linear with 4; does not beat ridge "
        "with 0.5 and broken with nan, which need not be beaten; there is no champion yet"
    )
    worse = decide(2.5, 5.0, baselines={"repeat_last": 2.0, "seasonal_naive": 3.0, "flat": 1.0})
    assert worse.reason == "reference_mae 2.5 does not beat the baselines repeat_last with 2 and flat with 1"


def test_a_first_champion_that_had_no_baselines_to_beat_does_not_claim_to_have_beaten_them() -> None:
    assert "beats the baselines" in decide(1.0, has_champion=False, baselines={"repeat_last": 2.0}).reason
    easy: dict[str, Any] = {"baselines": {"repeat_last": 0.5}, "must_beat_baselines": False}
    none: dict[str, Any] = {"baselines": {}}
    for policy in (easy, none):
        assert "beats" not in decide(1.0, has_champion=False, **policy).reason


@pytest.mark.parametrize(("candidate", "promotes"), [(1.0, True), (3.0, False)])
def test_a_dry_run_decides_as_always_and_does_not_act(candidate: float, promotes: bool) -> None:
    dry, real = (decide(candidate, 2.0, dry_run=dry_run) for dry_run in (True, False))
    assert (dry.promote, dry.outcome) == (real.promote, real.outcome)
    assert (dry.promote, dry.acts, real.acts) == (promotes, False, promotes)
    assert ("dry run" in dry.reason) is promotes


@pytest.mark.parametrize(
    ("metric", "champion", "needed"), [("mae", 2.0, 1.8), ("accuracy", 0.5, 0.55), ("r2", -0.5, -0.45)]
)
def test_the_needed_score_is_the_champion_s_bettered_by_the_margin(metric: str, champion: float, needed: float) -> None:
    decision = decide(1.0, champion, metric=metric, margin=0.1)
    assert decision.needed == pytest.approx(needed)
    assert decide(1.0, has_champion=False).needed is None


def compared(
    probability: float,
    *,
    retraining: Retraining | None = None,
    broken: tuple[str, ...] = (),
    word: str = "",
    uses: int = 1,
    scores: tuple[float, float] = (1.0, 1.1),
    **policy: Any,
) -> Decision:
    return decide_promotion(
        Contender(2, scores[0]), Contender(1, scores[1]), {}, "mae", METRICS.get("mae"), PromotionConfig(**policy), NOW,
        Reference("pump_v1", "0" * 64, 100, uses=uses), word,
        comparison=Comparison(-0.1, -0.2, 0.05, probability, 100, "step", 6, 2000),
        broken=broken, retraining=retraining,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("probability", "retraining", "policy", "outcome"),
    [
        # An even probability is no demand: the score alone decides.
        (0.4, None, {}, "better"),
        (0.89, None, {"min_probability": 0.9}, "uncertain"),
        (0.9, None, {"min_probability": 0.9}, "better"),
        # Drift asks for more, but never for less than the policy.
        (0.89, Retraining("errors"), {}, "uncertain"),
        (0.9, Retraining("errors"), {}, "better"),
        (0.9, Retraining("errors"), {"min_probability": 0.95}, "uncertain"),
        (0.6, Retraining("errors"), {"drift": {"min_probability": 0.6}}, "better"),
    ],
)
def test_luck_is_refused(
    probability: float, retraining: Retraining | None, policy: dict[str, Any], outcome: str
) -> None:
    decision = compared(probability, retraining=retraining, **policy)
    assert decision.outcome == outcome
    assert f"better with probability {probability:.3g} (difference -0.1, 95% interval -0.2 to +0.05" in decision.reason
    assert decision.figures["probability"] == probability


def test_a_demanding_policy_needs_a_comparison() -> None:
    assert decide(1.0, 1.1, min_probability=0.9).outcome == "uncertain"
    assert decide(1.0, has_champion=False, min_probability=0.9).outcome == "first"


@pytest.mark.parametrize(
    ("candidate", "failed", "word", "outcome"),
    [
        (1.0, False, "", "better"),
        (1.1, False, "", "better"),
        (1.2, False, "", "worse_before"),
        (1.2, True, "", "better"),
        (1.2, False, "the old plant is gone", "better"),
    ],
)
def test_a_drift_retraining_remembers_the_time_before(candidate: float, failed: bool, word: str, outcome: str) -> None:
    before = Before("pump_v0", candidate, 1.0, failed, 1.2)
    decision = compared(0.99, retraining=Retraining("feature:flow", before=before), word=word)
    assert decision.outcome == outcome
    assert (word in decision.reason) is True


@pytest.mark.parametrize("retraining", [None, Retraining("feature:flow")], ids=["by hand", "for drift"])
def test_a_broken_feed_waits_for_a_person(retraining: Retraining | None) -> None:
    broken = ("columns 'flow' and 'heat' seem to be exchanged",)
    refused = compared(1.0, retraining=retraining, broken=broken)
    assert refused.outcome == "broken_column"
    assert "seem to be exchanged" in refused.reason
    assert ("drift (feature:flow) asked for it" in refused.reason) is (retraining is not None)
    allowed = compared(1.0, retraining=retraining, broken=broken, word="the sensors were renamed")
    assert allowed.promote
    assert "the sensors were renamed" in allowed.reason
    # A word is no proof.
    unproven = compared(0.5, retraining=Retraining("feature:flow"), broken=broken, word="the sensors were renamed")
    assert unproven.outcome == "uncertain"


@pytest.mark.parametrize(("uses", "warns"), [(19, False), (20, True)])
def test_a_worn_reference_set_is_named(uses: int, warns: bool) -> None:
    assert bool(compared(0.9, uses=uses).warnings) is warns
