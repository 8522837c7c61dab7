"""Asset checks on every candidate.

`leakage`, `pair_integrity` and `serving_parity` find errors: if one fails, the run fails before anything is promoted.
`promotion_gate`, `beats_baseline` and `too_good` warn: "not better than production" is a normal outcome, and the run
goes on without a promotion. What a check finds is kept with the pair, for the promoter and for later runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetIn,
    ResourceParam,
    asset_check,
)

from mlplatform.candidates import Candidate
from mlplatform.config import ExperimentConfig
from mlplatform.datamodule import StoredFold
from mlplatform.defs.assets import gate_metadata, load_part, too_good_evidence
from mlplatform.defs.io_managers import as_reader
from mlplatform.defs.keys import CV_FOLDS, FOLD_PREPROCESSOR, REGISTERED_PAIR, TUNED_MODEL, asset_key
from mlplatform.defs.metadata import table
from mlplatform.defs.resources import PlatformResource, TrainingResource
from mlplatform.preprocessing import TransformManager

if TYPE_CHECKING:
    from mlplatform.registry.pairs import PairStore


@dataclass(frozen=True)
class Finding:
    """What a check found; `severity` is that of a check that did not pass."""

    passed: bool
    summary: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    severity: AssetCheckSeverity = AssetCheckSeverity.ERROR

    def result(self) -> AssetCheckResult:
        """Return the finding as Dagster takes it."""
        return AssetCheckResult(
            passed=self.passed, severity=self.severity, description=self.summary, metadata=self.metadata
        )


def find_parity(candidate: Candidate, store: "PairStore") -> Finding:
    """Find whether serving computes what training computes."""
    from mlplatform.promotion import check_serving_parity

    pair = store.of_run(candidate.config.registered_name, candidate.run_id)
    evidence, report = check_serving_parity(candidate.config, pair, store)
    metadata = {
        "online_reads": report.online_windows,
        "cutoffs": report.cutoffs,
        "differences": len(report.differences),
    }
    return Finding(evidence.passed, evidence.summary, metadata)


def find_integrity(candidate: Candidate, store: "PairStore") -> Finding:
    """Find whether the registered pair is whole and answers elsewhere what it answered when it was made."""
    from mlplatform.promotion import check_pair_integrity
    from mlplatform.registry.pairs import PairIntegrityError

    try:
        info = store.of_run(candidate.config.registered_name, candidate.run_id)
    except PairIntegrityError as error:
        return Finding(False, str(error))
    evidence, report = check_pair_integrity(info, store)
    metadata = {"version": info.version, "pair_id": info.pair_id, "values_compared": report.values}
    return Finding(evidence.passed, evidence.summary, metadata)


def find_baselines(candidate: Candidate, _store: "PairStore") -> Finding:
    """Find which naive baselines the candidate does not beat, and say how it does beside each baseline."""
    from mlplatform.promotion import compare_with_baselines

    comparisons = compare_with_baselines(candidate)
    metric = f"reference_{candidate.config.metric}"
    outcomes = [
        f"{'beats' if each.is_beaten else 'does not beat'} {each.baseline} ({each.baseline_score:.6g})"
        f"{'' if each.is_naive else ', which need not be beaten'}"
        for each in comparisons
    ]
    return Finding(
        all(each.is_beaten for each in comparisons if each.is_naive),
        f"{metric} {comparisons[0].candidate_score:.6g} {'; '.join(outcomes)}" if comparisons else "no baselines",
        {metric: table([vars(comparison) for comparison in comparisons])},
        AssetCheckSeverity.WARN,
    )


def find_decision(candidate: Candidate, store: "PairStore") -> Finding:
    """Find what the gate decides about the newest pair."""
    from mlplatform.promotion import check_promotion_gate

    pair = store.of_run(candidate.config.registered_name, candidate.run_id)
    report = check_promotion_gate(candidate.config, pair, store)
    severity = AssetCheckSeverity.ERROR if report.decision.is_error else AssetCheckSeverity.WARN
    return Finding(report.decision.promote, report.decision.reason, gate_metadata(report), severity)


@dataclass(frozen=True)
class PairCheck:
    """A check on the registered pair of a candidate."""

    find: Callable[[Candidate, "PairStore"], Finding]
    description: str
    blocking: bool = True


PAIR_CHECKS: Mapping[str, PairCheck] = {
    "serving_parity": PairCheck(
        find_parity,
        "Online windows against offline windows, and short windows against the whole history, bit for bit.",
    ),
    "pair_integrity": PairCheck(
        find_integrity,
        "A clean process loads the pair from the registry and reproduces its stored answer, bit for bit.",
    ),
    "beats_baseline": PairCheck(
        find_baselines, "The candidate's score on the reference set beside each naive baseline's.", blocking=False
    ),
    # With the severity WARN it stops nothing, but the alias waits for it.
    "promotion_gate": PairCheck(
        find_decision,
        "Candidate and champion scored again on the same reference set, and against the naive baselines.",
    ),
}


def experiment_checks(experiment: ExperimentConfig) -> list[AssetChecksDefinition]:
    """Return all checks of an experiment."""
    return [
        too_good_check(experiment),
        leakage_check(experiment),
        *(_pair_check(experiment, name, check) for name, check in PAIR_CHECKS.items()),
    ]


def _pair_check(experiment: ExperimentConfig, name: str, check: PairCheck) -> AssetChecksDefinition:
    @asset_check(
        asset=asset_key(experiment.name, REGISTERED_PAIR),
        name=name,
        blocking=check.blocking,
        additional_ins={"tuned_model": AssetIn(key=asset_key(experiment.name, TUNED_MODEL))},
        description=check.description,
    )
    def pair_check(
        platform: PlatformResource,
        training: TrainingResource,
        tuned_model: Candidate,
    ) -> AssetCheckResult:
        from dataclasses import replace

        from mlplatform.registry.pairs import PairStore

        candidate = replace(tuned_model, config=training.with_dry_run(tuned_model.config))
        finding = check.find(candidate, PairStore(platform.settings))
        return finding.result()

    return pair_check


def too_good_check(experiment: ExperimentConfig) -> AssetChecksDefinition:
    """Return the check for columns that are the target in disguise; the gate then waits for a person's word."""

    @asset_check(
        asset=asset_key(experiment.name, CV_FOLDS),
        name="too_good",
        description="No single input settles what the target's past leaves open, or tells the target of a table.",
    )
    def too_good(platform: PlatformResource, training: TrainingResource) -> AssetCheckResult:
        from mlplatform.datamodule import TRAIN, read_manifest
        from mlplatform.promotion import TOO_GOOD, keep_finding
        from mlplatform.training import find_too_good

        settings = platform.settings
        config = training.resolve(experiment.name, settings)
        findings = find_too_good(load_part(config, settings, TRAIN))
        evidence = too_good_evidence(findings)
        metadata = {"columns": table([vars(finding) for finding in findings])} if findings else {}
        manifest = read_manifest(settings, config.dataset.name, config.split.version_id)
        keep_finding(settings, config, TOO_GOOD, manifest.parts[TRAIN].sha256, evidence)
        return Finding(evidence.passed, evidence.summary, metadata, AssetCheckSeverity.WARN).result()

    return too_good


def leakage_check(experiment: ExperimentConfig) -> AssetChecksDefinition:
    """Return the check that rows after a fold's cut-off do not change what was learnt before it."""

    @asset_check(
        asset=asset_key(experiment.name, FOLD_PREPROCESSOR),
        name="leakage",
        blocking=True,
        description="Replaces all rows a fold may not see by noise and compares what was fitted, bit for bit.",
    )
    def leakage(
        platform: PlatformResource, training: TrainingResource, io_manager: ResourceParam[Any]
    ) -> AssetCheckResult:
        from mlplatform.datamodule import TRAIN, read_manifest
        from mlplatform.promotion import LEAKAGE, keep_finding
        from mlplatform.registry.pairs import Evidence
        from mlplatform.training import find_leaks

        settings = platform.settings
        config = training.resolve(experiment.name, settings)
        module = load_part(config, settings, TRAIN)
        # Read by name rather than as inputs: when a single fold is materialised, the others may not exist yet.
        stored_values = as_reader(io_manager)
        folds_key, fitted_key = asset_key(experiment.name, CV_FOLDS), asset_key(experiment.name, FOLD_PREPROCESSOR)
        checked, leaks = [], []
        for name in config.split.fold_names:
            if not stored_values.has(fitted_key, name):
                continue
            stored = stored_values.read(folds_key, name, StoredFold)
            if stored.config_digest != config.fold_digest():
                continue
            checked.append(name)
            found = find_leaks(module, stored.fold, stored_values.read(fitted_key, name, TransformManager))
            leaks += [f"{name}: {leak}" for leak in found]
        if not checked:
            leaks.append("no stored fold was cut for this configuration, so there was nothing to check")
        summary = "; ".join(leaks) or f"no leak in {', '.join(checked)}"
        manifest = read_manifest(settings, config.dataset.name, config.split.version_id)
        keep_finding(settings, config, LEAKAGE, manifest.parts[TRAIN].sha256, Evidence(not leaks, summary), checked)
        return Finding(not leaks, summary, {"folds": ", ".join(checked)}).result()

    return leakage
