"""The checks on a registered candidate, and the record of what they found.

The asset checks of a training run and the job that promotes a given version both run these.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlplatform.candidates import Candidate
from mlplatform.config import ExperimentConfig
from mlplatform.datamodule import REFERENCE
from mlplatform.plugins import METRICS, MODELS
from mlplatform.promotion.evidence import keep_evidence
from mlplatform.promotion.gate import GateReport, run_gate
from mlplatform.promotion.integrity import IntegrityReport, check_in_clean_process
from mlplatform.promotion.parity import ParityReport, check_parity
from mlplatform.promotion.promoter import gate_evidence
from mlplatform.registry.pairs import PAIR_INTEGRITY, PROMOTION_GATE, SERVING_PARITY, Evidence, PairInfo, PairStore

SHOWN = 5


@dataclass(frozen=True)
class BaselineComparison:
    """The candidate beside one baseline, on the reference set and in the experiment's metric.

    Attributes:
        is_naive: whether the gate may ask that it is beaten.
        gain: how much better the candidate is, as a share of the baseline's score.
    """

    baseline: str
    baseline_score: float
    candidate_score: float
    gain: float
    is_beaten: bool
    is_naive: bool = True


def compare_with_baselines(candidate: Candidate) -> list[BaselineComparison]:
    """Return the candidate beside every baseline, as training scored them."""
    name = candidate.config.metric
    metric, score = METRICS.get(name), candidate.report.candidate.parts[REFERENCE][name]
    comparisons = []
    for baseline, report in candidate.report.baselines.items():
        other = report.parts[REFERENCE][name]
        better_by = metric.loss(other) - metric.loss(score)
        gain = better_by / abs(other) if other else 0.0
        # NaN compares as false: a score that is not a number beats nothing.
        comparisons.append(
            BaselineComparison(baseline, other, score, gain, better_by > 0, MODELS.get(baseline).is_naive)
        )
    return comparisons


def check_pair_integrity(info: PairInfo, store: PairStore) -> tuple[Evidence, IntegrityReport]:
    """Have a clean process load the pair from the registry and reproduce its stored answer."""
    report = check_in_clean_process(store.settings, info)
    passed = f"a clean process reproduces the {report.values} values of the stored answer bit for bit"
    evidence = Evidence(not report.problems, "; ".join(report.problems[:SHOWN]) or passed)
    keep_evidence(store, info, PAIR_INTEGRITY, evidence)
    return evidence, report


def check_serving_parity(config: ExperimentConfig, info: PairInfo, store: PairStore) -> tuple[Evidence, ParityReport]:
    """Compare what serving computes with what training computes.

    Raises:
        PairIntegrityError: if the pair cannot be loaded.
    """
    from mlplatform.features.retrieval import load_history

    history = load_history(config.dataset, config.features.columns, store.settings)
    forecaster = store.load(info)
    report = check_parity(forecaster, config.dataset, history, store.settings, seed=config.seed)
    checked = f"{report.online_windows} online reads and {report.cutoffs} cut-offs agree bit for bit"
    passed = f"{checked}, answered {forecaster.model.inference}"
    evidence = Evidence(not report.differences, "; ".join(report.differences[:SHOWN]) or passed)
    keep_evidence(store, info, SERVING_PARITY, evidence)
    return evidence, report


def check_promotion_gate(config: ExperimentConfig, info: PairInfo, store: PairStore, word: str = "") -> GateReport:
    """Run the gate and keep its decision, which the promoter asks for.

    Parameters:
        word: a person's reason; see `decide_promotion`.
    """
    report = run_gate(config, info, store, word=word)
    keep_evidence(store, info, PROMOTION_GATE, gate_evidence(config, info, report))
    return report
