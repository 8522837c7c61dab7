"""The jobs of a model's life after training: promote, roll back, repair and reproduce a registered pair.

Each is one op; its result is in the run's page as the op's output metadata, and in the log.
"""

from typing import Any

from dagster import (
    AssetMaterialization,
    Config,
    JobDefinition,
    OpDefinition,
    OpExecutionContext,
    Output,
    in_process_executor,
    job,
    op,
)
from pydantic import Field

from mlplatform.config import ExperimentConfig
from mlplatform.defs.assets import promotion_metadata
from mlplatform.defs.keys import PRODUCTION_ALIAS, asset_key
from mlplatform.defs.metadata import table
from mlplatform.defs.resources import PlatformResource
from mlplatform.settings import Settings


class AskedBy(Config):
    """Who asks for a change, and why; both go into the alias history."""

    who: str = Field(default="", description="Default: the Dagster run.")
    why: str = Field(default="", description="Default: what the job does.")

    def asker(self, context: OpExecutionContext) -> str:
        """Return who asks."""
        return self.who or f"Dagster run {context.run_id}"


class RollbackConfig(AskedBy):
    """Where to go back to."""

    version: int | None = Field(default=None, ge=1, description="Default: the pair behind the alias `previous`.")


class PromoteConfig(AskedBy):
    """What to promote."""

    version: int | None = Field(default=None, ge=1, description="Default: the newest complete pair.")
    dry_run: bool = Field(default=False, description="Decide and report, but change nothing.")


class ReproduceConfig(Config):
    """What to build again."""

    version: int | None = Field(default=None, ge=1, description="Default: the pair in production.")


def lifecycle_jobs(experiment: ExperimentConfig) -> list[JobDefinition]:
    """Return the lifecycle jobs of an experiment; the only op of each is called as the job's first word."""
    name = experiment.name
    described = {
        promote_op: f"Promote a given version of {name} through the promotion gate.",
        rollback_op: f"Put an earlier pair of {name} back into production, and tell the servers.",
        repair_op: f"Put right what runs of {name} that were cut off left in the registry.",
        reproduce_op: f"Build a pair of {name} again from its record, and compare it bit for bit.",
    }
    return [_job(experiment, make(experiment), description) for make, description in described.items()]


def rollback_op(experiment: ExperimentConfig) -> OpDefinition:
    """Return the op that puts an earlier pair back into production."""

    @op(name=f"rollback_{experiment.name}_op")
    def rollback(context: OpExecutionContext, config: RollbackConfig, platform: PlatformResource) -> Output[None]:
        from mlplatform.promotion import roll_back
        from mlplatform.registry.pairs import PairStore

        settings = platform.settings
        done = roll_back(
            PairStore(settings),
            experiment.name,
            experiment.registered_name,
            to=config.version,
            who=config.asker(context),
            why=config.why or f"the job {context.job_name}",
        )
        context.log.info(f"{done.pair.name} version {done.pair.version} is in production again")
        metadata = {
            "production": done.pair.version,
            "replaced": done.replaced or "none",
            "pair_id": done.pair.pair_id,
            "checked": f"{done.integrity.values} values of the stored answer agree bit for bit",
            "servers": _tell_servers(context, settings, done.pair.version),
        }
        context.log_event(AssetMaterialization(asset_key(experiment.name, PRODUCTION_ALIAS), metadata=metadata))
        return Output(None, metadata=metadata)

    return rollback


def promote_op(experiment: ExperimentConfig) -> OpDefinition:
    """Return the op that promotes a given version through the gate."""

    @op(name=f"promote_{experiment.name}_op")
    def promote(context: OpExecutionContext, config: PromoteConfig, platform: PlatformResource) -> Output[None]:
        from mlplatform.promotion import promote_version
        from mlplatform.registry.pairs import PairStore

        settings = platform.settings
        promotion = promote_version(
            experiment,
            PairStore(settings),
            config.version,
            who=config.asker(context),
            why=config.why,
            dry_run=config.dry_run,
        )
        context.log.info(f"{'promoted' if promotion.promoted else 'not promoted'}: {promotion.reason}")
        metadata = promotion_metadata(promotion)
        if promotion.promoted:
            metadata["servers"] = _tell_servers(context, settings, promotion.production)
            context.log_event(AssetMaterialization(asset_key(experiment.name, PRODUCTION_ALIAS), metadata=metadata))
        return Output(None, metadata=metadata)

    return promote


def repair_op(experiment: ExperimentConfig) -> OpDefinition:
    """Return the op that repairs an experiment's registry and `active_config.yaml`."""

    @op(name=f"repair_{experiment.name}_op")
    def repair_registry(context: OpExecutionContext, platform: PlatformResource) -> Output[None]:
        from mlplatform.promotion import repair
        from mlplatform.registry.pairs import PairStore

        done = repair(PairStore(platform.settings), experiment.name, experiment.registered_name)
        repaired = [*done.registry.repaired]
        if done.wrote_active_config:
            repaired.append(f"wrote active_config.yaml for version {done.production}")
        for line in repaired:
            context.log.info(f"repaired: {line}")
        for line in done.registry.damaged:
            context.log.warning(f"cannot be repaired: {line}")
        if not repaired and not done.registry.damaged:
            context.log.info("everything was in order")
        return Output(
            None,
            metadata={
                "repaired": table([{"what": line} for line in repaired]),
                "damaged": table([{"what": line} for line in done.registry.damaged]),
                "production": done.production or "none",
                "latest": done.registry.latest or "none",
            },
        )

    return repair_registry


def reproduce_op(experiment: ExperimentConfig) -> OpDefinition:
    """Return the op that builds a registered pair again and compares it."""

    @op(name=f"reproduce_{experiment.name}_op")
    def reproduce(context: OpExecutionContext, config: ReproduceConfig, platform: PlatformResource) -> Output[None]:
        from mlplatform.promotion import reproduce_pair
        from mlplatform.registry.pairs import PRODUCTION, PairStore

        store = PairStore(platform.settings)
        ref = PRODUCTION if config.version is None else str(config.version)
        info = store.resolve(experiment.registered_name, ref)
        result = reproduce_pair(store, info, context.log)
        for comparison in result.comparisons:
            state = "equal" if comparison.agrees else "DIFFERENT"
            context.log.info(f"{comparison.what}: {state} ({comparison.detail})")
        for difference in result.differences:
            context.log.info(f"different since: {difference}")
        metadata: dict[str, Any] = {
            "version": info.version,
            "pair_id": info.pair_id,
            "agrees_bit_for_bit": result.agrees,
            "comparisons": table([vars(comparison) for comparison in result.comparisons]),
            "differences": table([{"what": line} for line in result.differences]),
            "data": table([{"part": part, "rows from": origin} for part, origin in result.data.items()]),
        }
        return Output(None, metadata=metadata)

    return reproduce


def _job(experiment: ExperimentConfig, operation: OpDefinition, description: str) -> JobDefinition:
    verb = operation.name.partition("_")[0]

    @job(
        name=f"{verb}_{experiment.name}",
        description=description,
        tags={"experiment": experiment.name},
        executor_def=in_process_executor,
    )
    def run_operation() -> None:
        # Names of ops are unique in a code location; the alias is what a run configuration says.
        operation.alias(verb)()

    return run_operation


def _tell_servers(context: OpExecutionContext, settings: Settings, version: int | None) -> str:
    """Tell the servers and return how it went; a server that serves another version is worth a warning."""
    from mlplatform.promotion import notify_servers

    notices = notify_servers(settings)
    for notice in notices:
        log = context.log.info if notice.version in (None, version) else context.log.warning
        log(notice.outcome)
    return "; ".join(notice.outcome for notice in notices)
