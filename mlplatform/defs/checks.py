"""Asset checks: leakage, parity and pair integrity block; the promotion gate warns.

A failed blocking check is an error: the run fails before anything is promoted. "Not better than production" is a normal
outcome: the gate's check fails with the severity WARN and the run goes on, without a promotion.
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

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule.folds import StoredFold
from mlplatform.defs.assets.inputs import load_part
from mlplatform.defs.assets.promotion import decision_metadata
from mlplatform.defs.io_managers import ArtifactIOManager
from mlplatform.defs.keys import CV_FOLDS, FOLD_PREPROCESSOR, REGISTERED_PAIR, TUNED_MODEL, asset_key
from mlplatform.defs.resources import PlatformResource, TrainingResource
from mlplatform.preprocessing.manager import TransformManager
from mlplatform.training.candidate import Candidate


def experiment_checks(experiment: ExperimentConfig) -> list[AssetChecksDefinition]:
    """Return all checks of an experiment."""
    return [
        leakage_check(experiment),
        parity_check(experiment),
        pair_integrity_check(experiment),
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
        from mlplatform.training.leakage import find_leaks

        config = training.resolve(experiment.name, platform.settings)
        module = load_part(config, platform.settings, "train")
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
        return AssetCheckResult(
            passed=not leaks,
            severity=AssetCheckSeverity.ERROR,
            description="; ".join(leaks) or f"no leak in {', '.join(checked)}",
            metadata={"folds": ", ".join(checked)},
        )

    return leakage


def parity_check(experiment: ExperimentConfig) -> AssetChecksDefinition:
    """Return the check that serving computes what training computes."""

    @asset_check(
        asset=asset_key(experiment.name, REGISTERED_PAIR),
        name="parity",
        blocking=True,
        additional_ins={"tuned_model": AssetIn(key=asset_key(experiment.name, TUNED_MODEL))},
        description="Online windows against offline windows, and short windows against the whole history, bit for bit.",
    )
    def parity(platform: PlatformResource, tuned_model: Candidate) -> AssetCheckResult:
        from mlplatform.features.retrieval import load_history
        from mlplatform.registry.pairs import PairStore
        from mlplatform.registry.parity import check_parity

        settings, config = platform.settings, tuned_model.config
        store = PairStore(settings)
        forecaster = store.load(store.of_run(config.registered_name, tuned_model.run_id))
        history = load_history(config.dataset, config.features.columns, settings)
        report = check_parity(forecaster, config.dataset, history, settings, seed=config.seed)
        passed = f"{report.online_windows} online reads and {report.cutoffs} cut-offs agree bit for bit"
        return AssetCheckResult(
            passed=not report.differences,
            severity=AssetCheckSeverity.ERROR,
            description="; ".join(report.differences[:5]) or passed,
            metadata={
                "online_reads": report.online_windows,
                "cutoffs": report.cutoffs,
                "differences": len(report.differences),
            },
        )

    return parity


def pair_integrity_check(experiment: ExperimentConfig) -> AssetChecksDefinition:
    """Return the check that the registered artifacts are those that were registered, and belong together."""

    @asset_check(
        asset=asset_key(experiment.name, REGISTERED_PAIR),
        name="pair_integrity",
        blocking=True,
        additional_ins={"tuned_model": AssetIn(key=asset_key(experiment.name, TUNED_MODEL))},
        description="Versions, pair ids and SHA-256 digests of preprocessor and model.",
    )
    def pair_integrity(platform: PlatformResource, tuned_model: Candidate) -> AssetCheckResult:
        from mlplatform.registry.pairs import PairIntegrityError, PairStore

        store = PairStore(platform.settings)
        try:
            info = store.of_run(tuned_model.config.registered_name, tuned_model.run_id)
            store.verify(info)
        except PairIntegrityError as error:
            return AssetCheckResult(passed=False, severity=AssetCheckSeverity.ERROR, description=str(error))
        return AssetCheckResult(passed=True, metadata={"version": info.version, "pair_id": info.pair_id})

    return pair_integrity


def promotion_gate_check(experiment: ExperimentConfig) -> AssetChecksDefinition:
    """Return the check that shows the gate's decision on the newest pair."""

    @asset_check(
        asset=asset_key(experiment.name, REGISTERED_PAIR),
        name="promotion_gate",
        additional_ins={"tuned_model": AssetIn(key=asset_key(experiment.name, TUNED_MODEL))},
        description="Candidate and champion scored again on the same reference set, and against the naive baselines.",
    )
    def promotion_gate(
        context: AssetCheckExecutionContext, platform: PlatformResource, tuned_model: Candidate
    ) -> AssetCheckResult:
        from mlplatform.registry.gate import run_gate
        from mlplatform.registry.pairs import PairStore

        config = tuned_model.config
        store = PairStore(platform.settings)
        decision = run_gate(config, store.of_run(config.registered_name, tuned_model.run_id), store)
        context.log.info(f"promotion gate: {decision.reason}")
        return AssetCheckResult(
            passed=decision.promote,
            severity=AssetCheckSeverity.WARN,
            description=decision.reason,
            metadata=decision_metadata(decision),
        )

    return promotion_gate
