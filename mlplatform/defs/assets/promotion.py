"""The production alias and the notice to the prediction servers."""

from typing import TYPE_CHECKING, Any

from dagster import AssetExecutionContext, AssetsDefinition, DataVersion, MaterializeResult, MetadataValue

from mlplatform.candidates import Candidate
from mlplatform.config import ExperimentConfig
from mlplatform.defs.assets.owned import owned_asset
from mlplatform.defs.keys import DRIFT_REPORT, PRODUCTION_ALIAS, REGISTERED_PAIR, SERVING_RELOAD, TUNED_MODEL, asset_key
from mlplatform.defs.metadata import picture, run_link, table
from mlplatform.defs.resources import MlflowResource, PlatformResource, TrainingResource
from mlplatform.defs.versions import data_version
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from mlplatform.promotion import GateReport, Promotion
    from mlplatform.registry.pairs import PairStore


def production_alias_asset(experiment: ExperimentConfig) -> AssetsDefinition:
    """Return the asset that points `production` at the newest pair if every check and the gate say so."""

    @owned_asset(
        experiment,
        PRODUCTION_ALIAS,
        reads=(TUNED_MODEL,),
        after=[asset_key(experiment.name, REGISTERED_PAIR)],
        kinds={"mlflow"},
        decided_by=experiment.promotion.model_dump(mode="json"),
        description="The pair behind the alias `production`; it changes only if the promotion gate decides for it.",
    )
    def production_alias(
        context: AssetExecutionContext,
        platform: PlatformResource,
        training: TrainingResource,
        mlflow: MlflowResource,
        tuned_model: Candidate,
    ) -> MaterializeResult[None]:
        from mlplatform.monitoring.retraining import hold_of
        from mlplatform.promotion import RUN_PAGE, promote_pair, record_decision, record_page
        from mlplatform.registry.pairs import PairStore

        settings, config = platform.settings, training.with_dry_run(tuned_model.config)
        store = PairStore(settings)
        candidate = store.of_run(config.registered_name, tuned_model.run_id)
        # A blocking check holds only within its own Dagster run: the promoter checks again, for exactly this version.
        who, hold = f"Dagster run {context.run.run_id}", hold_of(config, settings)
        promotion = promote_pair(config, candidate, store, who=who, hold=hold)
        with mlflow.run(context, settings, config.name, tuned_model.run_id) as run:
            record_decision(promotion.decision, candidate.version)
            # What happened, which is not what the gate decided if a check is missing or in a dry run.
            run.set_tags(
                {
                    "promotion.promote": str(promotion.promoted).lower(),
                    "promotion.outcome": promotion.outcome,
                    "promotion.reason": promotion.reason,
                }
            )
            record_page(store.client, tuned_model, promotion)
        context.log.info(f"{'promoted' if promotion.promoted else 'not promoted'}: {promotion.reason}")
        tell_promotion(settings, config, candidate.version, promotion, context.run.run_id)
        return MaterializeResult(
            metadata={
                "report": run_link(settings, config.name, tuned_model.run_id, artifact=RUN_PAGE),
                "candidate": candidate.version,
                **promotion_metadata(promotion),
                "drift_report": MetadataValue.asset(asset_key(config.name, DRIFT_REPORT)),
                **{f"server_{n}": MetadataValue.url(url) for n, url in enumerate(settings.serving_addresses, start=1)},
            },
            data_version=production_version(config.registered_name, store),
        )

    return production_alias


def production_version(name: str, store: "PairStore") -> DataVersion:
    """Return the data version of the production alias: which pair it stands for now."""
    from mlplatform.registry.pairs import PRODUCTION

    pair = store.find(name, PRODUCTION)
    return data_version(pair.pair_id if pair else None)


def tell_promotion(
    settings: Settings, config: ExperimentConfig, version: int, promotion: "Promotion", run_id: str
) -> None:
    """Tell people what became of a candidate; a dry run is nobody's news."""
    from mlplatform.alerts import promoted, refused, send_alert

    name = config.name
    if promotion.promoted:
        champion = promotion.report.champion
        replaced = champion.version if champion else None
        send_alert(settings, promoted(settings, name, version, replaced, promotion.reason, run_id))
    elif promotion.outcome != "dry_run" and not promotion.decision.dry_run:
        send_alert(settings, refused(settings, name, version, promotion.outcome, promotion.reason, run_id))


def promotion_metadata(promotion: "Promotion") -> dict[str, Any]:
    """Return what the promoter did as metadata."""
    return {
        **gate_metadata(promotion.report),
        "promoted": promotion.promoted,
        "outcome": promotion.outcome,
        "reason": promotion.reason,
        "production": promotion.production or "none",
    }


def gate_metadata(report: "GateReport") -> dict[str, Any]:
    """Return a gate's decision as metadata: its numbers as a table, and candidate against champion as a plot."""
    from mlplatform.promotion import gate_rows, plot_gate

    decision = report.decision
    metadata: dict[str, Any] = {
        "outcome": decision.outcome,
        "dry_run": decision.dry_run,
        decision.metric: table(gate_rows(decision)),
    }
    # Numbers, which the page of a check draws over time.
    for role, contender in (("candidate", decision.candidate), ("champion", decision.champion)):
        if contender is not None and contender.score is not None:
            metadata[f"{decision.metric} of the {role}"] = contender.score
    if decision.figures:
        metadata["candidate minus champion"] = table([decision.figures])
    if decision.retraining is not None:
        metadata["drift"] = decision.retraining.cause
        if decision.retraining.before is not None:
            metadata["on the champion's reference set"] = table([vars(decision.retraining.before)])
    if decision.broken:
        metadata["broken columns"] = "; ".join(decision.broken)
    if decision.warnings:
        metadata["warning"] = "; ".join(decision.warnings)
    if decision.notes:
        metadata["unknown"] = "; ".join(decision.notes)
    if decision.reference is not None:
        metadata["reference"] = table([vars(decision.reference)])
    if report.errors:
        metadata["plot"] = picture(plot_gate(report), "candidate against champion")
    return metadata


def serving_reload_asset(experiment: ExperimentConfig) -> AssetsDefinition:
    """Return the asset that tells the prediction servers about the production pair."""

    @owned_asset(
        experiment,
        SERVING_RELOAD,
        after=[asset_key(experiment.name, PRODUCTION_ALIAS)],
        kinds={"task"},
        # Servers read the policies when they are told.
        decided_by=experiment.model_dump(mode="json", include={"staleness", "requests", "observation", "serving"}),
        description=(
            "Tells the servers about the production pair. Best effort: a server that is not running, or serves "
            "another experiment, is not an error."
        ),
    )
    def serving_reload(context: AssetExecutionContext, platform: PlatformResource) -> MaterializeResult[None]:
        from mlplatform.promotion import notify_servers

        outcome = "; ".join(notice.outcome for notice in notify_servers(platform.settings))
        context.log.info(outcome)
        return MaterializeResult(metadata={"outcome": MetadataValue.text(outcome)})

    return serving_reload
