"""Repair: puts right at once what cut-off writers left behind, instead of waiting for the next registration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mlplatform.registry.pairs.info import (
    ROLES,
    STAGING,
    PairInfo,
    PairIntegrityError,
    PairNotFoundError,
    registered_model,
)
from mlplatform.registry.pairs.numbering import align, newest_first

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mlplatform.registry.pairs.aliases import Aliases
    from mlplatform.registry.pairs.lock import Ticket


class Reader(Protocol):
    """What a repair asks of the store that calls it: to read and check pairs, never to write."""

    @property
    def client(self) -> MlflowClient:
        """The MLflow client."""

    def resolve(self, name: str, ref: str | int) -> PairInfo:
        """Return a pair, its partners checked."""

    def find(self, name: str, ref: str | int) -> PairInfo | None:
        """Return a pair, its partners checked, or None if there is none."""

    def verify(self, info: PairInfo) -> None:
        """Check the digests of all files of a pair."""


@dataclass(frozen=True)
class RepairReport:
    """What a repair found.

    Attributes:
        name: stem of the registered models' names.
        repaired: what was put right, one line each; empty if everything was in order.
        damaged: what cannot be repaired, one line each: pairs that readers refuse. Those behind an alias had all
            their files checked, the others their versions only.
        latest: version of the newest complete pair; None if there is none.
    """

    name: str
    repaired: tuple[str, ...]
    damaged: tuple[str, ...]
    latest: int | None


def repair_pairs(store: Reader, ticket: Ticket, aliases: Aliases, name: str) -> RepairReport:
    """Bring version numbers, alias histories, `staging` and mirrors in line. Call as the only writer of the name."""
    repaired = [*align(store.client, name), *aliases.settle()]
    whole, problems = _survey(store, aliases, name)
    latest = max(whole, default=None)
    staged = {change.to_version for change in aliases.read().history(STAGING)}
    # A registration that was cut off before its last step; a pair that was staged before is left to whoever moved on.
    if latest is not None and latest not in staged:
        aliases.move(ticket, STAGING, latest, who="repair", why="its registration was cut off before this step")
        repaired.append(f"moved {STAGING!r} to version {latest}")
    repaired += aliases.mirror()
    return RepairReport(name, tuple(repaired), tuple(problems), latest)


def _survey(store: Reader, aliases: Aliases, name: str) -> tuple[list[int], list[str]]:
    """Return the versions that readers can resolve, and what is wrong with those that they refuse."""
    behind: dict[int, list[str]] = {}
    for alias, number in sorted(aliases.read().current.items()):
        behind.setdefault(number, []).append(alias)
    numbers = {int(version.version) for version in newest_first(store.client, registered_model(name, ROLES[-1]))}
    whole, problems = [], []
    for number in sorted(numbers | set(behind)):
        try:
            if number in behind:
                store.verify(store.resolve(name, number))
                whole.append(number)
            elif store.find(name, number) is not None:
                whole.append(number)
        except (PairIntegrityError, PairNotFoundError) as error:
            where = f" (behind {', '.join(behind[number])})" if number in behind else ""
            problems.append(f"version {number}{where}: {error}")
    return whole, problems
