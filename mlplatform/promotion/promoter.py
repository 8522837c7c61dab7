"""The promoter: the only way for a candidate to become the production pair.

It trusts nobody. The artifacts are verified, the results that the checks kept are read back, and the gate is run again
for exactly this version; only then does the alias change.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mlplatform.config import VERSION_GROUPS, ExperimentConfig
from mlplatform.locks import FileLock
from mlplatform.promotion.active_config import active_config_path, read_active_pair, write_active_config
from mlplatform.promotion.decision import Decision, Outcome
from mlplatform.promotion.evidence import LEAKAGE, find_evidence
from mlplatform.promotion.gate import GateReport, metric_name, run_gate
from mlplatform.registry.pairs import (
    PAIR_INTEGRITY,
    PRODUCTION,
    PROMOTION_GATE,
    SERVING_PARITY,
    Evidence,
    PairInfo,
    PairStore,
)
from mlplatform.settings import Settings

REQUIRED_CHECKS = (LEAKAGE, PAIR_INTEGRITY, SERVING_PARITY)
# Why the promoter does not act on the gate's word.
Objection = Literal["unchecked", "gate_missing", "gate_failed", "gate_stale", "dry_run", "held"]


class PromotionRefusedError(RuntimeError):
    """A pair that must not be promoted, because something that must never be different is different."""


@dataclass(frozen=True)
class Promotion:
    """What the promoter did.

    Attributes:
        outcome: the rule of the gate that decided, or why the promoter did not act on it.
        reason: one sentence for people.
        production: the version in production afterwards; None if there is none.
    """

    promoted: bool
    outcome: Outcome | Objection
    reason: str
    report: GateReport
    production: int | None
    candidate: PairInfo

    @property
    def decision(self) -> Decision:
        """The gate's decision at this moment."""
        return self.report.decision


def promote_pair(
    config: ExperimentConfig,
    candidate: PairInfo,
    store: PairStore,
    *,
    who: str,
    why: str = "",
    word: str = "",
    dry_run: bool = False,
    hold: str = "",
    now: dt.datetime | None = None,
) -> Promotion:
    """Make a pair the production pair if every check about it passed and the gate still says so.

    Parameters:
        config: the configuration the candidate was trained with, and today's policy.
        who, why: for the alias history; `why` defaults to the gate's reason.
        word: a person's reason; see `decide_promotion`.
        dry_run: decide, but change nothing; the policy can ask for that too.
        hold: a reason from outside of the registry to leave production as it is, such as broken data.

    Raises:
        PairIntegrityError: if the candidate's artifacts are not what was registered.
        PromotionRefusedError: if a blocking check failed, or the champion or the reference set was changed.
    """
    policy = config.promotion.model_copy(update={"dry_run": dry_run or config.promotion.dry_run})
    config = config.model_copy(update={"promotion": policy})
    with promotion_lock(store.settings, config.registered_name):
        store.verify(candidate)
        # A promotion that was cut off after the alias is finished here.
        sync_active_config(store, config.name, config.registered_name, create=False)
        unchecked = _missing_checks(store, candidate)
        report = run_gate(config, candidate, store, now, word)
        if report.decision.is_error:
            raise PromotionRefusedError(f"{candidate.name} version {candidate.version}: {report.decision.reason}")
        objection = _objection(config, candidate, store, report, unchecked) or (("held", hold) if hold else None)
        outcome, reason = objection or ("", report.decision.reason)
        if not outcome:
            decided_against = report.champion.version if report.champion else None
            store.promote(candidate.name, candidate.version, who, why or reason, champion=decided_against)
            write_active_config(config.name, config.versions, candidate.version, store.settings)
        champion = store.find(config.registered_name, PRODUCTION)
        final = outcome or report.decision.outcome
        return Promotion(not outcome, final, reason, report, champion.version if champion else None, candidate)


def gate_evidence(config: ExperimentConfig, candidate: PairInfo, report: GateReport) -> Evidence:
    """Return a gate decision in the form in which it is kept with the pair."""
    decision = report.decision
    summary = "; ".join((decision.reason, *decision.notes, *decision.warnings))
    return Evidence(decision.promote, summary, _basis(config, candidate, report), figures=decision.figures)


def sync_active_config(store: PairStore, experiment: str, name: str, *, create: bool) -> bool:
    """Write `active_config.yaml` anew if it is not about the pair in production; return whether it was written.

    Parameters:
        create: write it also where there is none; someone may have deleted it to go back to the defaults.
    """
    champion = store.find(name, PRODUCTION)
    if champion is None or read_active_pair(experiment, store.settings) == champion.version:
        return False
    if not create and not active_config_path(experiment, store.settings).exists():
        return False
    if not set(VERSION_GROUPS) <= set(champion.tags):
        return False
    write_active_config(experiment, champion.tags, champion.version, store.settings)
    return True


@contextlib.contextmanager
def promotion_lock(settings: Settings, name: str) -> Iterator[None]:
    """Hold off other promotions and rollbacks of an experiment, so that a decision is acted on while it is true."""
    with FileLock(settings.home / "locks" / f"promotion-{name}.lock"):
        yield


def _missing_checks(store: PairStore, candidate: PairInfo) -> list[str]:
    """Return the blocking checks that never looked at the candidate.

    Raises:
        PromotionRefusedError: if one of them failed.
    """
    missing = []
    for check in REQUIRED_CHECKS:
        evidence = find_evidence(store, candidate, check)
        if evidence is None:
            missing.append(check)
        elif not evidence.passed:
            raise PromotionRefusedError(
                f"{candidate.name} version {candidate.version} failed the check {check}: {evidence.summary}"
            )
    return missing


def _objection(
    config: ExperimentConfig, candidate: PairInfo, store: PairStore, report: GateReport, unchecked: list[str]
) -> tuple[Outcome | Objection, str] | None:
    """Return why the alias must stay, or None."""
    decision, name = report.decision, f"{candidate.name} version {candidate.version}"
    again = f"run the check {PROMOTION_GATE} of {candidate.name}/registered_pair again"
    if not decision.promote:
        return decision.outcome, decision.reason
    if unchecked:
        return "unchecked", f"{name} was never checked for {', '.join(unchecked)}; run its checks, or train again"
    kept = find_evidence(store, candidate, PROMOTION_GATE)
    if kept is None:
        return "gate_missing", f"{name} never went through the gate; {again}"
    changed = kept.changed(_basis(config, candidate, report))
    if changed:
        return (
            "gate_stale",
            f"the gate's decision on {name} of {kept.at} is about another {', '.join(changed)}; {again}",
        )
    if not kept.passed:
        return "gate_failed", f"the gate's decision on {name} of {kept.at} was: {kept.summary}; {again}"
    return ("dry_run", decision.reason) if decision.dry_run else None


def _basis(config: ExperimentConfig, candidate: PairInfo, report: GateReport) -> dict[str, str]:
    """Return what a decision was made about; with anything else it may come out otherwise."""
    reference = report.decision.reference
    policy = config.promotion.model_dump(mode="json", exclude={"dry_run"})
    return {
        "candidate": candidate.pair_id,
        "champion": report.champion.pair_id if report.champion else "none",
        "reference set": reference.sha256 if reference else "unreadable",
        "metric": metric_name(config),
        "policy": json.dumps(policy, sort_keys=True),
    }
