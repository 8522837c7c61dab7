"""What stands in the Dagster page for an experiment or dataset that cannot be loaded.

An asset `configuration` says what is wrong, its check `is_valid` fails with it, and the jobs that the experiment or
dataset would have end with it, so that whoever starts one learns why. Everything else is loaded as ever.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from dagster import (
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetSpec,
    Field,
    JobDefinition,
    MetadataValue,
    asset_check,
    job,
    op,
)

from mlplatform.config import NAME_PATTERN, ConfigError, load_all_datasets, load_all_experiments
from mlplatform.defs.keys import CONFIGURATION, asset_key
from mlplatform.defs.resources import PlatformResource
from mlplatform.settings import Settings

Group = Literal["experiment", "dataset"]
LOAD = {"experiment": load_all_experiments, "dataset": load_all_datasets}
# Job names, in which {} is the experiment or dataset, and the name of the op in each.
JOBS: dict[Group, dict[str, str]] = {
    "experiment": {f"{verb}_{{}}": verb for verb in ("train", "monitor", "forecast", "nested_cv")},
    "dataset": {"ingest_{}": "ingest", "materialize_{}": "materialize", "materialize_{}_full": "materialize"},
}


@dataclass(frozen=True)
class Broken:
    """A file of a configuration group that cannot be loaded."""

    group: Group
    name: str
    error: ConfigError

    def error_now(self, settings: Settings) -> ConfigError | None:
        """Return what is wrong with the file as it is now."""
        _, broken = LOAD[self.group](settings)
        return broken.get(self.name)


def list_broken(errors: Mapping[Group, Mapping[str, ConfigError]]) -> dict[str, list[Broken]]:
    """Return what cannot be loaded by the name it has in Dagster, where an experiment may be called as a dataset."""
    found: dict[str, list[Broken]] = {}
    for group, by_name in errors.items():
        for name, error in by_name.items():
            found.setdefault(re.sub(r"[^A-Za-z0-9_]", "_", name), []).append(Broken(group, name, error))
    return found


def configuration_asset(name: str, broken: Iterable[Broken]) -> AssetSpec:
    """Return the asset that says what is wrong; nothing materialises it."""
    texts = {f"{each.group} {each.name}": str(each.error) for each in broken}
    said = "\n\n".join(f"The {what} is not loaded:\n\n```\n{text}\n```" for what, text in texts.items())
    return AssetSpec(
        asset_key(name, CONFIGURATION),
        group_name=name,
        kinds={"yaml"},
        description=f"{said}\n\nMend it and reload the code location.",
        metadata={what: MetadataValue.text(text) for what, text in texts.items()},
    )


def is_valid_check(name: str, broken: Iterable[Broken]) -> AssetChecksDefinition:
    """Return the check that fails with what is wrong as long as it is."""
    files = tuple(broken)

    found = "\n".join(str(each.error) for each in files)

    @asset_check(
        asset=asset_key(name, CONFIGURATION),
        description=f"Whether the configuration can be loaded. When the code location was, it could not: {found}",
    )
    def is_valid(platform: PlatformResource) -> AssetCheckResult:
        errors = [str(error) for each in files if (error := each.error_now(platform.settings)) is not None]
        return AssetCheckResult(
            passed=not errors,
            severity=AssetCheckSeverity.ERROR,
            description="\n".join(errors) or "Nothing is wrong any more; reload the code location.",
        )

    return is_valid


def failing_jobs(broken: Iterable[Broken], taken: Collection[str]) -> list[JobDefinition]:
    """Return the jobs that what is broken would have; each ends with what is wrong.

    Parameters:
        taken: names of jobs that are there all the same, as of a dataset that an experiment describes itself.
    """
    # A file whose name cannot be that of an experiment never had jobs.
    named = [each for each in broken if re.fullmatch(NAME_PATTERN, each.name)]
    wanted = [(each, name.format(each.name), step) for each in named for name, step in JOBS[each.group].items()]
    return [_failing_job(each, name, step) for each, name, step in wanted if name not in taken]


def _failing_job(broken: Broken, name: str, step: str) -> JobDefinition:
    # It takes the run configuration of the job it stands for, which is not what is wrong.
    @op(
        name=f"{name}_configuration",
        config_schema=Field(dict, is_required=False),
        required_resource_keys={"training"},
    )
    def fail() -> None:
        # Without what led to it when the code location was loaded, which would stand below the reason.
        raise ConfigError(str(broken.error))

    @job(
        name=name,
        description=f"Fails, because the {broken.group} cannot be loaded: {broken.error}",
        tags={broken.group: broken.name},
    )
    def failing() -> None:
        fail.alias(step)()

    return failing
