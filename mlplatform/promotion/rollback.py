"""The way back: an earlier pair in production again, and a registry put right after a run was cut off."""

from __future__ import annotations

from dataclasses import dataclass

from mlplatform.promotion.integrity import IntegrityReport, check_integrity
from mlplatform.promotion.promoter import promotion_lock, sync_active_config
from mlplatform.registry.pairs import PREVIOUS, PRODUCTION, PairInfo, PairIntegrityError, PairStore, RepairReport


@dataclass(frozen=True)
class Rollback:
    """What a rollback did.

    Attributes:
        pair: what is in production now.
        replaced: the version that was in production before; None if there was none.
        integrity: what was found about the pair before it was put back.
    """

    pair: PairInfo
    replaced: int | None
    integrity: IntegrityReport


@dataclass(frozen=True)
class Repair:
    """What a repair found and did.

    Attributes:
        registry: the store's report.
        wrote_active_config: whether `active_config.yaml` was behind.
    """

    registry: RepairReport
    wrote_active_config: bool
    production: int | None


def roll_back(
    store: PairStore, experiment: str, name: str, *, to: int | None = None, who: str, why: str = ""
) -> Rollback:
    """Put the previous pair, or a given version, back into production.

    The pair is verified, loaded and asked for its stored input example first. Nothing changes unless it answers with
    the same bits as when it was registered.

    Parameters:
        to: version to go back to; default: the one behind the alias `previous`.

    Raises:
        PairNotFoundError: if there is no such pair, or it is in production already.
        PairIntegrityError: if the pair is not what was registered, or answers otherwise.
    """
    with promotion_lock(store.settings, name):
        champion = store.find(name, PRODUCTION)
        target = store.resolve(name, PREVIOUS if to is None else str(to))
        integrity = check_integrity(store, target)
        if integrity.problems:
            raise PairIntegrityError(f"version {target.version} of {name!r}: {'; '.join(integrity.problems)}")
        pair = store.rollback(name, to=target.version, who=who, why=why)
        # The next training and the drift report start from what the pair in production was trained with.
        sync_active_config(store, experiment, name, create=True)
        return Rollback(pair, champion.version if champion else None, integrity)


def repair(store: PairStore, experiment: str, name: str) -> Repair:
    """Finish or undo what a run that was cut off left half done in the registry and in `active_config.yaml`."""
    with promotion_lock(store.settings, name):
        report = store.repair(name)
        wrote = sync_active_config(store, experiment, name, create=True)
        champion = store.find(name, PRODUCTION)
        return Repair(report, wrote, champion.version if champion else None)
