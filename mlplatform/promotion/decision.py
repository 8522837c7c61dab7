"""The promotion decision: a pure function of scores, data, policy and time."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from mlplatform.config import PromotionConfig
from mlplatform.plugin_kinds import MetricPlugin
from mlplatform.promotion.bootstrap import Comparison

Outcome = Literal[
    "first",
    "better",
    "current",
    "not_better",
    "baseline",
    "cooldown",
    "older",
    "too_little_data",
    "incomparable",
    "damaged",
    "overlap",
    "too_good",
    "uncertain",
    "broken_column",
    "worse_before",
]


@dataclass(frozen=True)
class Contender:
    """A registered pair with its score on the reference set.

    Attributes:
        version: version number of the pair.
        score: the deciding metric, in original units; None if it cannot be scored on this reference set.
        promoted_at: when it became the champion; None for a candidate.
        obstacle: why it cannot be scored, if it cannot.
        data_until: the newest training row; None if its training run does not say.
        overlap: which rows of the reference set it was trained on, if any.
        suspicion: what a check found too good about it, if anything.
    """

    version: int
    score: float | None
    promoted_at: dt.datetime | None = None
    obstacle: str = ""
    data_until: dt.datetime | None = None
    overlap: str = ""
    suspicion: str = ""


@dataclass(frozen=True)
class Reference:
    """The rows that a decision rests on.

    Attributes:
        version_id: split version.
        sha256: of the Parquet file.
        rows: number of rows over all entities, context rows not counted.
        left_out: entities whose rows are too few for one sample.
        uses: on how many versions it has decided, with this one.
    """

    version_id: str
    sha256: str
    rows: int
    left_out: tuple[str, ...] = ()
    uses: int = 0


@dataclass(frozen=True)
class Before:
    """The two pairs on the reference set that the champion was judged on, where the candidate has another.

    Attributes:
        version_id: split version of that reference set.
        candidate, champion: the deciding metric on it.
        champion_failed: whether the champion's errors have grown since by as much as counts as drift.
        growth: the champion's mean error on the new reference set, as a multiple of that on this one.
    """

    version_id: str
    candidate: float
    champion: float
    champion_failed: bool
    growth: float


@dataclass(frozen=True)
class Retraining:
    """What is known of a training that drift asked for.

    Attributes:
        cause: what had drifted.
        before: None where candidate and champion have one reference set, or the old one cannot be answered.
    """

    cause: str
    before: Before | None = None


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and why.

    Attributes:
        promote: whether the candidate may become the champion.
        outcome: the rule that decided.
        reason: one sentence for people.
        needed: the score that the margin asks for; None where there is no champion to beat.
        dry_run: whether the policy says that nothing may change, whatever was decided.
        notes: what could not be found out, for people.
        comparison: candidate beside champion by resampling; None where there is nothing to compare.
        min_probability: the probability of being better that was asked for.
        broken: what a broken feed seems to have done to the rows since the champion's reference set; empty if nothing.
        retraining: what is known of the drift that asked for the training; None if none did.
        warnings: what is to be done soon.
        baselines, others: scores of the naive baselines, and of those that need not be beaten.
    """

    promote: bool
    outcome: Outcome
    reason: str
    candidate: Contender
    champion: Contender | None
    metric: str
    baselines: Mapping[str, float] = field(default_factory=dict)
    reference: Reference | None = None
    needed: float | None = None
    dry_run: bool = False
    notes: tuple[str, ...] = ()
    others: Mapping[str, float] = field(default_factory=dict)
    comparison: Comparison | None = None
    min_probability: float = 0.5
    broken: tuple[str, ...] = ()
    retraining: Retraining | None = None
    warnings: tuple[str, ...] = ()

    @property
    def acts(self) -> bool:
        """Whether the alias is to be changed."""
        return self.promote and not self.dry_run

    @property
    def figures(self) -> dict[str, float]:
        """Effect, interval and probability as they are kept; empty where there is nothing to compare."""
        if self.comparison is None:
            return {}
        found = {name: getattr(self.comparison, name) for name in ("effect", "low", "high", "probability")}
        return {**found, "min_probability": self.min_probability}

    @property
    def is_error(self) -> bool:
        """Whether something was changed that must never change, rather than that a rule said no."""
        return self.outcome == "damaged"


@dataclass(frozen=True)
class Case:
    """What a decision is made from: see `decide_promotion`."""

    candidate: Contender
    champion: Contender | None
    baselines: Mapping[str, float]
    metric_name: str
    metric: MetricPlugin
    policy: PromotionConfig
    now: dt.datetime
    reference: Reference | None = None
    word: str = ""
    others: Mapping[str, float] = field(default_factory=dict)
    comparison: Comparison | None = None
    broken: tuple[str, ...] = ()
    retraining: Retraining | None = None

    @property
    def min_probability(self) -> float:
        """The least probability that the candidate is better."""
        policy = self.policy
        if self.retraining is None:
            return policy.min_probability
        return max(policy.min_probability, policy.drift.min_probability)

    @property
    def needed(self) -> float | None:
        """The score that beats the champion by the margin."""
        if self.champion is None or self.champion.score is None:
            return None
        loss = self.metric.loss(self.champion.score)
        return self.metric.loss(loss - self.policy.margin * abs(loss))


Verdict = tuple[Outcome, str] | None


def decide_promotion(
    candidate: Contender,
    champion: Contender | None,
    baselines: Mapping[str, float],
    metric_name: str,
    metric: MetricPlugin,
    policy: PromotionConfig,
    now: dt.datetime,
    reference: Reference | None = None,
    word: str = "",
    others: Mapping[str, float] | None = None,
    comparison: Comparison | None = None,
    broken: tuple[str, ...] = (),
    retraining: Retraining | None = None,
) -> Decision:
    """Decide whether `candidate` replaces `champion`: the first rule with an objection decides.

    A score that is not finite counts as none: NaN compares as false with everything, so it must not reach a comparison.

    Parameters:
        candidate: with its score on the reference set.
        champion: with its score on the same reference set; None if there is none yet.
        baselines: the same metric for every naive baseline.
        now: the current time, with time zone.
        reference: the rows behind the scores; None leaves the least number of rows unchecked.
        word: why a person promotes the candidate although a check finds it too good, although the feed looks broken or
            the candidate forgot the time before it, or although the champion knows reference rows, which can only make
            it look better than it is. Nothing else bends to it.
        others: the same metric for the other baselines, which the reason names and no rule reads.
        comparison: of candidate and champion on the reference samples; a policy that asks for more than an even
            probability refuses a candidate without one.
        broken: what a broken feed seems to have done to the rows since the champion's reference set; empty if nothing.
        retraining: what is known of the drift that asked for the candidate's training; None if none did.
    """
    case = Case(
        candidate,
        champion,
        baselines,
        metric_name,
        metric,
        policy,
        now,
        reference,
        word,
        others or {},
        comparison,
        broken,
        retraining,
    )
    for rule in RULES:
        verdict = rule(case)
        if verdict is not None:
            return _decision(case, False, *verdict)
    return _decision(case, True, *_approval(case))


def refuse_damaged(candidate: Contender, metric_name: str, reason: str) -> Decision:
    """Return the decision where candidate, champion or reference set is not what it was when it was written."""
    return Decision(False, "damaged", reason, candidate, None, metric_name)


def _decision(case: Case, promote: bool, outcome: Outcome, reason: str) -> Decision:
    if promote and case.policy.dry_run:
        reason += "; this is a dry run, so nothing changes"
    return Decision(
        promote,
        outcome,
        reason,
        case.candidate,
        case.champion,
        case.metric_name,
        case.baselines,
        case.reference,
        case.needed,
        case.policy.dry_run,
        others=case.others,
        comparison=case.comparison,
        min_probability=case.min_probability,
        broken=case.broken,
        retraining=case.retraining,
        warnings=_worn_out(case),
    )


def _worn_out(case: Case) -> tuple[str, ...]:
    reference = case.reference
    if reference is None or reference.uses < case.policy.reference_uses_warning:
        return ()
    return (
        f"the reference set of split version {reference.version_id} has decided on {reference.uses} versions, and the "
        f"more it decides the more luck it rewards; give the split a new version name, which freezes a fresh one",
    )


def _has_score(case: Case) -> Verdict:
    if not _is_scored(case.candidate):
        return "incomparable", f"version {case.candidate.version} cannot be scored: {_obstacle(case.candidate)}"
    return None


def _not_current(case: Case) -> Verdict:
    if case.champion is not None and case.champion.version == case.candidate.version:
        return "current", f"version {case.candidate.version} is in production already"
    return None


def _not_older(case: Case) -> Verdict:
    candidate, champion = case.candidate, case.champion
    if champion is None or not case.policy.never_older:
        return None
    if champion.version > candidate.version:
        return "older", f"version {candidate.version} is older than the champion, version {champion.version}"
    if candidate.data_until and champion.data_until and candidate.data_until < champion.data_until:
        return "older", (
            f"version {candidate.version} was trained on rows up to {candidate.data_until.isoformat()}, but the "
            f"champion, version {champion.version}, on rows up to {champion.data_until.isoformat()}"
        )
    return None


def _enough_data(case: Case) -> Verdict:
    reference = case.reference
    if reference is not None and reference.rows < case.policy.min_reference_rows:
        return "too_little_data", (
            f"the reference set of split version {reference.version_id} has {reference.rows} rows, and the policy asks "
            f"for {case.policy.min_reference_rows}"
        )
    return None


def _never_saw_the_reference(case: Case) -> Verdict:
    if case.candidate.overlap:
        return "overlap", (
            f"version {case.candidate.version} {case.candidate.overlap}, so its score says nothing; train it again on "
            "a split version whose reference set it has not seen"
        )
    return None


def _plausible(case: Case) -> Verdict:
    if case.candidate.suspicion and not case.word:
        return "too_good", (
            f"version {case.candidate.version} may know what it is to predict: {case.candidate.suspicion}; leave the "
            "column out, or promote this version by hand and say why that is right"
        )
    return None


def _learnt_from_a_working_feed(case: Case) -> Verdict:
    if not case.broken or case.word:
        return None
    asked = "" if case.retraining is None else f"drift ({case.retraining.cause}) asked for it, but "
    return "broken_column", (
        f"version {case.candidate.version} was trained or judged on rows of a broken feed: {asked}"
        f"{'; '.join(case.broken)}; repair the feed and train again, or promote this version by hand and say why "
        "that is right"
    )


def _remembers(case: Case) -> Verdict:
    before = None if case.retraining is None else case.retraining.before
    if before is None or case.word or before.champion_failed:
        return None
    loss, champion = case.metric.loss(before.candidate), case.metric.loss(before.champion)
    most = champion + case.policy.drift.max_worse_before * abs(champion)
    if loss <= most:
        return None
    return "worse_before", (
        f"version {case.candidate.version} has {before.candidate:.6g} on the reference set of split version "
        f"{before.version_id}, where the champion has {before.champion:.6g}, and the policy lets it be worse by "
        f"{case.policy.drift.max_worse_before:.0%} at most, as long as the champion has not failed since (its error is "
        f"{before.growth:.2f} times what it was)"
    )


def _champion_never_saw_the_reference(case: Case) -> Verdict:
    champion = case.champion
    if champion is not None and champion.overlap and not case.word:
        return "overlap", (
            f"the champion, version {champion.version}, {champion.overlap}, so it looks better than it is; use a split "
            "version whose reference set it has not seen, or promote by hand and say why"
        )
    return None


def _beats_baselines(case: Case) -> Verdict:
    lost = [name for name in case.baselines if not _beats(case, case.baselines[name])]
    if not lost or not case.policy.must_beat_baselines:
        return None
    named = " and ".join(f"{name} with {case.baselines[name]:.6g}" for name in lost)
    noun = "baseline" if len(lost) == 1 else "baselines"
    return "baseline", f"{case.metric_name} {case.candidate.score:.6g} does not beat the {noun} {named}"


def _beats(case: Case, baseline: float) -> bool:
    assert case.candidate.score is not None
    return case.metric.loss(case.candidate.score) < case.metric.loss(baseline)


def _has_scored_champion(case: Case) -> Verdict:
    champion = case.champion
    if champion is not None and not _is_scored(champion):
        return "incomparable", (f"the champion, version {champion.version}, cannot be compared: {_obstacle(champion)}")
    return None


def _beats_champion(case: Case) -> Verdict:
    if case.champion is None:
        return None
    score, champion_score, needed = case.candidate.score, case.champion.score, case.needed
    assert score is not None
    assert champion_score is not None
    assert needed is not None
    loss = case.metric.loss(score)
    if loss < case.metric.loss(champion_score) and loss <= case.metric.loss(needed):
        return None
    margin = f" by the margin of {case.policy.margin:.2%}" if case.policy.margin else ""
    evidence = "" if case.comparison is None else f"; {case.comparison.words()}"
    return "not_better", (
        f"{case.metric_name} {score:.6g} does not beat version {case.champion.version} with "
        f"{champion_score:.6g}{margin}{evidence}"
    )


def _is_no_luck(case: Case) -> Verdict:
    if case.champion is None or case.min_probability <= 0.5:
        return None
    found = "nothing tells how probable that is" if case.comparison is None else case.comparison.words()
    if case.comparison is not None and case.comparison.probability >= case.min_probability:
        return None
    asked = "a training that drift asked for" if case.retraining else "the policy"
    return "uncertain", (
        f"{case.metric_name} {case.candidate.score:.6g} may beat version {case.champion.version} with "
        f"{case.champion.score:.6g} by luck: {found}, and {asked} needs {case.min_probability:.3g}"
    )


def _cooled_down(case: Case) -> Verdict:
    if case.champion is None or case.champion.promoted_at is None:
        return None
    waited = (case.now - case.champion.promoted_at).total_seconds() / 3600
    if waited < case.policy.cooldown_hours:
        return "cooldown", (
            f"version {case.champion.version} was promoted {waited:.1f} h ago, and the policy asks for "
            f"{case.policy.cooldown_hours:g} h between promotions"
        )
    return None


RULES: tuple[Callable[[Case], Verdict], ...] = (
    _has_score,
    _not_current,
    _not_older,
    _enough_data,
    _never_saw_the_reference,
    _plausible,
    _learnt_from_a_working_feed,
    _beats_baselines,
    _has_scored_champion,
    _champion_never_saw_the_reference,
    _remembers,
    _beats_champion,
    _is_no_luck,
    _cooled_down,
)


def _approval(case: Case) -> tuple[Outcome, str]:
    scored = f"{case.metric_name} {case.candidate.score:.6g}"
    doubts = _in_doubt(case)
    said = [f"a person says of what is in doubt: {case.word}"] if doubts else []
    outcomes = _beside_baselines(case)
    if case.champion is not None:
        against = f"beats version {case.champion.version} with {case.champion.score:.6g}"
        evidence = [] if case.comparison is None else [case.comparison.words()]
        return "better", f"{scored} {'; '.join((against, *evidence, *outcomes, *said))}"
    words = "; ".join((*outcomes, "there is no champion yet", *said))
    return "first", f"{scored} {words}" if outcomes else f"{scored}; {words}"


def _in_doubt(case: Case) -> bool:
    """Return whether the candidate needed a person's word."""
    if case.candidate.suspicion or (case.champion is not None and case.champion.overlap):
        return True
    unsaid = replace(case, word="")
    return (_learnt_from_a_working_feed(unsaid) or _remembers(unsaid)) is not None


def _beside_baselines(case: Case) -> list[str]:
    """Return what is beaten and what is not, every baseline by name."""
    scores = {**case.baselines, **case.others}
    beaten = [f"{name} with {score:.6g}" for name, score in scores.items() if _beats(case, score)]
    lost = [f"{name} with {score:.6g}" for name, score in scores.items() if not _beats(case, score)]
    words = [f"beats the baselines {' and '.join(beaten)}"] if beaten else []
    return words + ([f"does not beat {' and '.join(lost)}, which need not be beaten"] if lost else [])


def _is_scored(contender: Contender) -> bool:
    return contender.score is not None and math.isfinite(contender.score)


def _obstacle(contender: Contender) -> str:
    return contender.obstacle if contender.score is None else f"its score is {contender.score}"
