"""From a name and an alias, number or `latest` to a pair. The only module that looks an alias up for readers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlplatform.registry.pairs.aliases import AliasChange, Aliases, Snapshot, end_in_production
from mlplatform.registry.pairs.evidence import has_passed, last_refusal, verdict
from mlplatform.registry.pairs.info import (
    LATEST,
    PAIR_ID,
    PREVIOUS,
    PRODUCTION,
    ROLES,
    PairInfo,
    PairIntegrityError,
    PairUnreadableError,
    is_complete,
    partner_tag,
    registered_model,
)
from mlplatform.registry.pairs.numbering import newest_first
from mlplatform.registry.tracking import mlflow_error

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow keeps version numbers in a 32-bit column; databases raise on larger ones.
LARGEST_VERSION = 2**31 - 1
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def find_pair(client: MlflowClient, name: str, ref: str) -> PairInfo | None:
    """Return the complete pair behind an alias, a version number or `latest`; None if there is none.

    One read gives the aliases and their history; all after it depends on a version number only, and what a version
    number stands for never changes. So whatever is written meanwhile, the answer is one pair.
    """
    try:
        snapshot = Aliases(client, name).read()
        number = _number(client, name, ref, snapshot)
        if number is None:
            return None
        found = client.get_model_version(registered_model(name, "model"), str(number))
    except mlflow_error() as error:
        if error.error_code in _ABSENT:
            return None
        raise
    return PairInfo.of_version(name, found, snapshot.promoted_at(number)) if is_complete(found) else None


def pair_of_run(client: MlflowClient, name: str, run_id: str) -> int | None:
    """Return the version of the newest complete pair that an MLflow run registered."""
    model = registered_model(name, "model")
    versions = client.search_model_versions(f"name='{model}' and run_id='{run_id}'", order_by=["version_number DESC"])
    return next((int(version.version) for version in versions if is_complete(version)), None)


def check_partners(client: MlflowClient, info: PairInfo) -> None:
    """Check that the other two versions belong to the same pair.

    Raises:
        PairIntegrityError: naming the one that does not.
        PairUnreadableError: if the registry does not answer.
    """
    for role in ROLES[:-1]:
        partner, number = registered_model(info.name, role), info.tags[partner_tag(role)]
        try:
            found = client.get_model_version(partner, number).tags.get(PAIR_ID)
        except mlflow_error() as error:
            problem = PairIntegrityError if error.error_code in _ABSENT else PairUnreadableError
            raise problem(
                f"version {number} of {partner!r}, the partner of {info.name}_model, cannot be read: {error}"
            ) from error
        if found != info.pair_id or number != str(info.version):
            raise PairIntegrityError(
                f"version {number} of {partner!r} has pair id {found!r}, but {info.name}_model version {info.version} "
                f"has {info.pair_id!r}: they are not a pair. Promote or roll back to a complete version"
            )


def refusal(client: MlflowClient, name: str) -> str | None:
    """Say what keeps the newest complete pair out of production; `None` if there is no complete pair."""
    newest = find_pair(client, name, LATEST)
    if newest is None:
        return None
    changes = Aliases(client, name).read().history(PRODUCTION)
    return f"version {newest.version} {outcome(newest, changes)}"


def outcome(pair: PairInfo, changes: Sequence[AliasChange]) -> str:
    """Say what became of a pair that is not in production, as the end of a sentence about its version.

    Parameters:
        changes: of any aliases of its name, those of each oldest first.
    """
    found = end_in_production(changes, pair.version)
    if found is None:
        return verdict(pair.tags)
    ended, when = found
    refused = last_refusal(pair.tags, since=when)
    return f"{ended}; since then it {refused}" if when and refused else ended


def absence(client: MlflowClient, name: str, ref: str) -> str:
    """Say that there is no such pair, why, and what to do."""
    found, train = f"no pair {name!r} with {_wording(ref)}", f"run mlplatform train {name}, or the job train_{name},"
    newest = refusal(client, name)
    if newest is None:
        return f"{found}; {train} first"
    if ref == PRODUCTION:
        candidate = find_pair(client, name, LATEST)
        if candidate is not None and has_passed(candidate.tags):
            return f"{found}: {newest}; run mlplatform promote {name}"
        return f"{found}: {newest}; {train} again, or promote another version"
    if ref == PREVIOUS:
        champion = find_pair(client, name, PRODUCTION)
        why = f"version {champion.version} is the first" if champion else "none is in production, and none was before"
        return f"{found}: {why}, so there is nothing to go back to; name a version to go to"
    return f"{found}; `latest` is the newest complete pair"


def _wording(ref: str) -> str:
    """Say what was looked for."""
    if ref == LATEST:
        return "any complete version"
    return f"version {ref}" if ref.isdecimal() else f"the alias {ref!r}"


def _number(client: MlflowClient, name: str, ref: str, snapshot: Snapshot) -> int | None:
    if ref == LATEST:
        versions = newest_first(client, registered_model(name, "model"))
        return next((int(version.version) for version in versions if is_complete(version)), None)
    if ref.isdecimal():
        return int(ref) if int(ref) <= LARGEST_VERSION else None
    return snapshot.current.get(ref)
