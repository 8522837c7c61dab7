"""Asset checks on every candidate.

`leakage`, `pair_integrity` and `serving_parity` find errors: if one fails, the run fails before anything is promoted.
`promotion_gate` and `beats_baseline` warn: "not better than production" is a normal outcome, and the run goes on
without a promotion. What a check finds is kept with the pair, for the promoter and for later runs.
"""

from dagster import (
    AssetCheckExecutionContext,
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
from mlplatform.defs.assets import gate_metadata, load_part
from mlplatform.defs.io_managers import ArtifactIOManager
from mlplatform.defs.keys import CV_FOLDS, FOLD_PREPROCESSOR, REGISTERED_PAIR, TUNED_MODEL, asset_key
from mlplatform.defs.metadata import table
from mlplatform.defs.resources import PlatformResource, TrainingResource
from mlplatform.preprocessing import TransformManager


def experiment_checks(experiment: ExperimentConfig) -> list[AssetChecksDefinition]:
    """Return all checks of an experiment."""
    return [
        leakage_check(experiment),
        serving_parity_check(experiment),
        pair_integrity_check(experiment),
        beats_baseline_check(experiment),
        promotion_gate_check(experiment),
    ]


def leakage_check(experiment: ExperimentConfig) -> AssetChecksDefinition:
    """Return the check that rows after a fold's cut-off do not change what was learnt before it."""

    @asset_check(
        asset=asset_key(experiment.name, FOLD_PREPROCESSOR),
        name="leakage",
        blocking=True,
        description="Replaces all rows a fold may not see by noise and compares what was fitted, bit for bit.",
    )
    def leakage(
        platform: PlatformResource, training: TrainingResource, io_manager: ResourceParam[ArtifactIOManager]
    ) -> AssetCheckResult:
        from mlplatform.datamodule import TRAIN, read_manifest
        from mlplatform.promotion import Evidence, keep_leakage
        from mlplatform.training import find_leaks

        settings = platform.settings
        config = training.resolve(experiment.name, settings)
        module = load_part(config, settings, TRAIN)
        # Read from the store rather than as inputs: when a single fold is materialised, the others may not exist yet.
        store = io_manager.store
        folds_key, fitted_key = asset_key(experiment.name, CV_FOLDS), asset_key(experiment.name, FOLD_PREPROCESSOR)
        checked, leaks = [], []
        for name in config.split.fold_names:
            if not store.folder(fitted_key, name).exists():
                continue
            stored = store.read(folds_key, name, StoredFold)
            if stored.config_digest != config.fold_digest():
                continue
            checked.append(name)
            found = find_leaks(module, stored.fold, store.read(fitted_key, name, TransformManager))
            leaks += [f"{name}: {leak}" for leak in found]
        if not checked:
            leaks.append("no stored fold was cut for this configuration, so there was nothing to check")
        summary = "; ".join(leaks) or f"no leak in {', '.join(checked)}"
        manifest = read_manifest(settings, config.dataset.name, config.split.version_id)
        keep_leakage(settings, config, manifest.parts[TRAIN].sha256, checked, Evidence(not leaks, summary))
        return AssetCheckResult(
            passed=not leaks,
            severity=AssetCheckSeverity.ERROR,
            description=summary,
            metadata={"folds": ", ".join(checked)},
        )

    return leakage


def serving_parity_check(experiment: ExperimentConfig) -> AssetChecksDefinition:
    """Return the check that serving computes what training computes."""

    @asset_check(
        asset=asset_key(experiment.name, REGISTERED_PAIR),
        name="serving_parity",
        blocking=True,
        additional_ins={"tuned_model": AssetIn(key=asset_key(experiment.name, TUNED_MODEL))},
        description="Online windows against offline windows, and short windows against the whole history, bit for bit.",
    )
    def serving_parity(platform: PlatformResource, tuned_model: Candidate) -> AssetCheckResult:
        from mlplatform.promotion import check_serving_parity
        from mlplatform.registry.pairs import PairStore

        config = tuned_model.config
        store = PairStore(platform.settings)
        evidence, report = check_serving_parity(config, store.of_run(config.registered_name, tuned_model.run_id), store)
        return AssetCheckResult(
            passed=evidence.passed,
            severity=AssetCheckSeverity.ERROR,
            description=evidence.summary,
            metadata={
                "online_reads": report.online_windows,
                "cutoffs": report.cutoffs,
                "differences": len(report.differences),
            },
        )

    return serving_parity


def pair_integrity_check(experiment: ExperimentConfig) -> AssetChecksDefinition:
    """Return the check that the registered pair is whole and answers elsewhere what it answered when it was made."""

    @asset_check(
        asset=asset_key(experiment.name, REGISTERED_PAIR),
        name="pair_integrity",
        blocking=True,
        additional_ins={"tuned_model": AssetIn(key=asset_key(experiment.name, TUNED_MODEL))},
        description="A clean process loads the pair from the registry and reproduces its stored answer, bit for bit.",
    )
    def pair_integrity(platform: PlatformResource, tuned_model: Candidate) -> AssetCheckResult:
        from mlplatform.promotion import check_pair_integrity
        from mlplatform.registry.pairs import PairIntegrityError, PairStore

        store = PairStore(platform.settings)
        try:
            info = store.of_run(tuned_model.config.registered_name, tuned_model.run_id)
        except PairIntegrityError as error:
            return AssetCheckResult(passed=False, severity=AssetCheckSeverity.ERROR, description=str(error))
        evidence, report = check_pair_integrity(info, store)
        return AssetCheckResult(
            passed=evidence.passed,
            severity=AssetCheckSeverity.ERROR,
            description=evidence.summary,
            metadata={"version": info.version, "pair_id": info.pair_id, "values_compared": report.values},
        )

    return pair_integrity


def beats_baseline_check(experiment: ExperimentConfig) -> AssetChecksDefinition:
    """Return the check that shows the candidate beside each naive baseline."""

    @asset_check(
        asset=asset_key(experiment.name, REGISTERED_PAIR),
        name="beats_baseline",
        additional_ins={"tuned_model": AssetIn(key=asset_key(experiment.name, TUNED_MODEL))},
        description="The candidate's score on the reference set beside each naive baseline's.",
    )
    def beats_baseline(tuned_model: Candidate) -> AssetCheckResult:
        from mlplatform.promotion import compare_with_baselines

        comparisons = compare_with_baselines(tuned_model)
        lost = [comparison.baseline for comparison in comparisons if not comparison.is_beaten]
        metric = f"reference_{tuned_model.config.metric}"
        won = f"{metric} beats {len(comparisons)} naive baselines"
        return AssetCheckResult(
            passed=not lost,
            severity=AssetCheckSeverity.WARN,
            description=f"{metric} does not beat {', '.join(lost)}" if lost else won,
            metadata={metric: table([vars(comparison) for comparison in comparisons])},
        )

    return beats_baseline


def promotion_gate_check(experiment: ExperimentConfig) -> AssetChecksDefinition:
    """Return the check that shows the gate's decision on the newest pair."""

    @asset_check(
        asset=asset_key(experiment.name, REGISTERED_PAIR),
        name="promotion_gate",
        # With the severity WARN it stops nothing, but the alias waits for it.
        blocking=True,
        additional_ins={"tuned_model": AssetIn(key=asset_key(experiment.name, TUNED_MODEL))},
        description="Candidate and champion scored again on the same reference set, and against the naive baselines.",
    )
    def promotion_gate(
        context: AssetCheckExecutionContext,
        platform: PlatformResource,
        training: TrainingResource,
        tuned_model: Candidate,
    ) -> AssetCheckResult:
        from mlplatform.promotion import check_promotion_gate
        from mlplatform.registry.pairs import PairStore

        config = training.with_dry_run(tuned_model.config)
        store = PairStore(platform.settings)
        candidate = store.of_run(config.registered_name, tuned_model.run_id)
        report = check_promotion_gate(config, candidate, store)
        context.log.info(f"promotion gate: {report.decision.reason}")
        return AssetCheckResult(
            passed=report.decision.promote,
            severity=AssetCheckSeverity.ERROR if report.decision.is_error else AssetCheckSeverity.WARN,
            description=report.decision.reason,
            metadata=gate_metadata(report),
        )

    return promotion_gate
