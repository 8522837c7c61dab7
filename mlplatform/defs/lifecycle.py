"""The jobs of a model's life after training: promote, roll back, repair and reproduce a registered pair.

Each is one job for all experiments, because their number would be that of the experiments otherwise: the run
configuration names the experiment, and the run is tagged with it. A job is one op of the same name; what it did is in
the run's page as the op's output metadata, and in the log. That two of them do not race for an experiment's aliases is
the registry's matter, which has one writer at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dagster import AssetMaterialization, Config, JobDefinition, OpExecutionContext, Output, job, op
from pydantic import Field, field_validator

from mlplatform.config import ConfigError, ExperimentConfig
from mlplatform.defs.assets import production_version, promotion_metadata, tell_promotion
from mlplatform.defs.keys import EXPERIMENT_TAG, PRODUCTION_ALIAS, asset_key
from mlplatform.defs.metadata import table
from mlplatform.defs.resources import PlatformResource
from mlplatform.defs.versions import DATA_VERSION_TAG

if TYPE_CHECKING:
    from mlplatform.registry.pairs import PairStore


class OfExperiment(Config):
    """Whose pairs a job is about."""

    experiment: str = Field(default="", description="Its name. Default: the only experiment there is.")


class AskedBy(OfExperiment):
    """Who asks for a change, and why; both go into the alias history."""

    who: str = Field(default="", description="Default: the Dagster run.")
    why: str = Field(default="", description="Default: what the job does. May be left out, but not blank.")

    @field_validator("who")
    @classmethod
    def _without_space(cls, who: str) -> str:
        return who.strip()

    @field_validator("why")
    @classmethod
    def _says_something(cls, why: str) -> str:
        # Where a reason is a person's word, it lifts what checks hold up.
        if why and not why.strip():
            raise ValueError(f"why is {why!r}, which is no reason; say it, or leave why out")
        return why.strip()


class RollbackConfig(AskedBy):
    """Where to go back to."""

    version: int | None = Field(default=None, ge=1, description="Default: the pair behind the alias `previous`.")


class PromoteConfig(AskedBy):
    """What to promote."""

    version: int | None = Field(default=None, ge=1, description="Default: the newest complete pair.")
    dry_run: bool = Field(default=False, description="Decide and report, but change nothing.")


class ReproduceConfig(OfExperiment):
    """What to build again."""

    version: int | None = Field(default=None, ge=1, description="Default: the pair in production.")


@dataclass(frozen=True)
class Asked:
    """One run of a lifecycle job: on what, and by whom."""

    experiment: ExperimentConfig
    store: "PairStore"
    context: OpExecutionContext

    def who(self, config: AskedBy) -> str:
        """Return who asks."""
        return config.who or f"Dagster run {self.context.run_id}"

    def announce(self, version: int | None, metadata: dict[str, Any]) -> dict[str, Any]:
        """Tell the servers and Dagster about a change of the production pair; return the metadata with how it went."""
        from mlplatform.promotion import notify_servers

        notices = notify_servers(self.store.settings)
        for notice in notices:
            # A server that serves another version is worth a warning.
            log = self.context.log.info if notice.version in (None, version) else self.context.log.warning
            log(notice.outcome)
        metadata = {**metadata, "servers": "; ".join(notice.outcome for notice in notices)}
        key = asset_key(self.experiment.name, PRODUCTION_ALIAS)
        in_production = production_version(self.experiment.registered_name, self.store)
        tags = {DATA_VERSION_TAG: in_production.value}
        self.context.log_event(AssetMaterialization(key, metadata=metadata, tags=tags))
        return metadata


def promote(asked: Asked, config: PromoteConfig) -> dict[str, Any]:
    """Promote a given version through the gate."""
    from mlplatform.monitoring.retraining import hold_of
    from mlplatform.promotion import promote_version

    settings = asked.store.settings
    promotion = promote_version(
        asked.experiment,
        asked.store,
        config.version,
        who=asked.who(config),
        why=config.why,
        dry_run=config.dry_run,
        # A reason is a person's word that the data are known to be broken.
        hold="" if config.why else hold_of(asked.experiment, settings),
    )
    asked.context.log.info(f"{'promoted' if promotion.promoted else 'not promoted'}: {promotion.reason}")
    version = promotion.candidate.version
    tell_promotion(settings, asked.experiment, version, promotion, asked.context.run_id)
    metadata = promotion_metadata(promotion)
    return asked.announce(promotion.production, metadata) if promotion.promoted else metadata


def rollback(asked: Asked, config: RollbackConfig) -> dict[str, Any]:
    """Put an earlier pair back into production."""
    from mlplatform.alerts import rolled_back, send_alert
    from mlplatform.promotion import roll_back

    done = roll_back(
        asked.store,
        asked.experiment.name,
        asked.experiment.registered_name,
        to=config.version,
        who=asked.who(config),
        why=config.why or f"the job {asked.context.job_name}",
    )
    asked.context.log.info(f"{done.pair.name} version {done.pair.version} is in production again")
    settings, run_id = asked.store.settings, asked.context.run_id
    send_alert(settings, rolled_back(settings, asked.experiment.name, done.pair.version, done.replaced, run_id))
    metadata = {
        "production": done.pair.version,
        "replaced": done.replaced or "none",
        "pair_id": done.pair.pair_id,
        "checked": f"{done.integrity.values} values of the stored answer agree bit for bit",
    }
    return asked.announce(done.pair.version, metadata)


def repair(asked: Asked, _config: OfExperiment) -> dict[str, Any]:
    """Repair an experiment's registry and `active_config.yaml`."""
    from mlplatform.promotion import repair as repair_all

    done = repair_all(asked.store, asked.experiment.name, asked.experiment.registered_name)
    repaired, log = [*done.registry.repaired], asked.context.log
    if done.wrote_active_config:
        repaired.append(f"wrote active_config.yaml for version {done.production}")
    for line in repaired:
        log.info(f"repaired: {line}")
    for line in done.registry.damaged:
        log.warning(f"cannot be repaired: {line}")
    if not repaired and not done.registry.damaged:
        log.info("everything was in order")
    return {
        "repaired": table([{"what": line} for line in repaired]),
        "damaged": table([{"what": line} for line in done.registry.damaged]),
        "production": done.production or "none",
        "latest": done.registry.latest or "none",
    }


def reproduce(asked: Asked, config: ReproduceConfig) -> dict[str, Any]:
    """Build a registered pair again and compare it."""
    from mlplatform.promotion import reproduce_pair
    from mlplatform.registry.pairs import PRODUCTION

    ref = PRODUCTION if config.version is None else str(config.version)
    info = asked.store.resolve(asked.experiment.registered_name, ref)
    result = reproduce_pair(asked.store, info, asked.context.log)
    for comparison in result.comparisons:
        state = "equal" if comparison.agrees else "DIFFERENT"
        asked.context.log.info(f"{comparison.what}: {state} ({comparison.detail})")
    for difference in result.differences:
        asked.context.log.info(f"different since: {difference}")
    return {
        "version": info.version,
        "pair_id": info.pair_id,
        "agrees_bit_for_bit": result.agrees,
        "comparisons": table([vars(comparison) for comparison in result.comparisons]),
        "differences": table([{"what": line} for line in result.differences]),
        "data": table([{"part": part, "rows from": origin} for part, origin in result.data.items()]),
    }


@dataclass(frozen=True)
class Lifecycle:
    """A lifecycle job: what its op does, the op's configuration, and a description."""

    act: Callable[[Asked, Any], dict[str, Any]]
    config: type[OfExperiment]
    description: str


LIFECYCLE: Mapping[str, Lifecycle] = {
    "promote": Lifecycle(
        promote, PromoteConfig, "Promote a given version of an experiment through the promotion gate."
    ),
    "rollback": Lifecycle(
        rollback, RollbackConfig, "Put an earlier pair of an experiment back into production, and tell the servers."
    ),
    "repair": Lifecycle(
        repair, OfExperiment, "Put right what runs of an experiment that were cut off left in the registry."
    ),
    "reproduce": Lifecycle(
        reproduce, ReproduceConfig, "Build a pair of an experiment again from its record, and compare it bit for bit."
    ),
}


def lifecycle_jobs(
    experiments: Sequence[ExperimentConfig], broken: Mapping[str, ConfigError] | None = None
) -> list[JobDefinition]:
    """Return the lifecycle jobs, each for all experiments.

    Parameters:
        broken: experiments that cannot be loaded, and why; a run that names one ends with that.
    """
    known = {experiment.name: experiment for experiment in experiments}
    return [_job(known, broken or {}, verb, lifecycle) for verb, lifecycle in LIFECYCLE.items()]


def _job(
    known: Mapping[str, ExperimentConfig], broken: Mapping[str, ConfigError], verb: str, lifecycle: Lifecycle
) -> JobDefinition:
    @op(name=f"{verb}_op", config_schema=lifecycle.config.to_fields_dict())
    def act(context: OpExecutionContext, platform: PlatformResource) -> Output[None]:
        from mlplatform.registry.pairs import PairStore

        config = lifecycle.config(**context.op_config)
        experiment = _named(config.experiment, known, broken)
        # Runs of one experiment are found by it, whichever job they are of.
        context.instance.add_run_tags(context.run_id, {EXPERIMENT_TAG: experiment.name})
        asked = Asked(experiment, PairStore(platform.settings), context)
        return Output(None, metadata=lifecycle.act(asked, config))

    @job(name=verb, description=lifecycle.description)
    def run_op() -> None:
        # Names of ops and jobs are unique in a code location; the alias is what a run configuration says.
        act.alias(verb)()

    return run_op


def _named(name: str, known: Mapping[str, ExperimentConfig], broken: Mapping[str, ConfigError]) -> ExperimentConfig:
    """Return the experiment that a run configuration names.

    Raises:
        ConfigError: if there is none of that name, it cannot be loaded, or none is named among several.
    """
    if name in known:
        return known[name]
    if name in broken:
        raise ConfigError(str(broken[name]))
    if not name and len(known) == 1:
        return next(iter(known.values()))
    found = f"there is no experiment {name!r}" if name else "no experiment is named"
    raise ConfigError(f"{found}; set `experiment` in the job's configuration to one of {', '.join(sorted(known))}")
