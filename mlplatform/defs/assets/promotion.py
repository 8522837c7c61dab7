"""The production alias and the notice to the prediction server."""

from typing import Any

from dagster import AssetExecutionContext, AssetIn, AssetsDefinition, MaterializeResult, MetadataValue, asset

from mlplatform.config import ExperimentConfig
from mlplatform.defs.keys import PRODUCTION_ALIAS, REGISTERED_PAIR, SERVING_RELOAD, TUNED_MODEL, asset_key
from mlplatform.defs.metadata import table
from mlplatform.defs.resources import MlflowResource, PlatformResource
from mlplatform.registry.promotion import Decision
from mlplatform.training.candidate import Candidate


def production_alias_asset(experiment: ExperimentConfig) -> AssetsDefinition:
    """Return the asset that points `production` at the newest pair if the gate says so."""

    @asset(
        key=asset_key(experiment.name, PRODUCTION_ALIAS),
        ins={"tuned_model": AssetIn(key=asset_key(experiment.name, TUNED_MODEL))},
        deps=[asset_key(experiment.name, REGISTERED_PAIR)],
        group_name=experiment.name,
        kinds={"mlflow"},
        description="The pair behind the alias `production`; it changes only if the promotion gate decides for it.",
    )
    def production_alias(
        context: AssetExecutionContext, platform: PlatformResource, mlflow: MlflowResource, tuned_model: Candidate
    ) -> MaterializeResult[None]:
        from mlplatform.registry.active_config import write_active_config
        from mlplatform.registry.gate import run_gate
        from mlplatform.registry.pairs import PRODUCTION, PairStore
        from mlplatform.registry.recording import record_decision

        settings, config = platform.settings, tuned_model.config
        store = PairStore(settings)
        candidate = store.of_run(config.registered_name, tuned_model.run_id)
        store.verify(candidate)
        # A blocking check holds only within its own Dagster run, so the gate decides here, for exactly this version.
        decision = run_gate(config, candidate, store)
        with mlflow.run(context, settings, config.name, tuned_model.run_id):
            record_decision(decision, candidate.version)
        if decision.promote:
            store.promote(candidate)
            write_active_config(config.name, config.versions, candidate.version, settings)
        champion = store.find(config.registered_name, PRODUCTION)
        context.log.info(f"{'promoted' if decision.promote else 'not promoted'}: {decision.reason}")
        return MaterializeResult(
            metadata={
                "promoted": decision.promote,
                "reason": decision.reason,
                "candidate": candidate.version,
                "production": champion.version if champion else "none",
                **decision_metadata(decision),
            }
        )

    return production_alias


def decision_metadata(decision: Decision) -> dict[str, Any]:
    """Return a decision as asset or check metadata."""
    rows = [{"contender": f"version {decision.candidate.version} (candidate)", "score": decision.candidate.score}]
    if decision.champion is not None:
        rows.append({"contender": f"version {decision.champion.version} (champion)", "score": decision.champion.score})
    rows += [{"contender": f"baseline {name}", "score": score} for name, score in decision.baselines.items()]
    return {"outcome": decision.outcome, decision.metric: table(rows)}


def serving_reload_asset(experiment: ExperimentConfig) -> AssetsDefinition:
    """Return the asset that tells the prediction server about the production pair."""

    @asset(
        key=asset_key(experiment.name, SERVING_RELOAD),
        deps=[asset_key(experiment.name, PRODUCTION_ALIAS)],
        group_name=experiment.name,
        kinds={"fastapi"},
        description="Best effort: a server that is not running, or serves another experiment, is not an error.",
    )
    def serving_reload(context: AssetExecutionContext, platform: PlatformResource) -> MaterializeResult[None]:
        from mlplatform.registry.notify import notify_server

        outcome = notify_server(platform.settings)
        context.log.info(outcome)
        return MaterializeResult(metadata={"outcome": MetadataValue.text(outcome)})

    return serving_reload
