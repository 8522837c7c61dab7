"""Promote, go back, and the record of both."""

from __future__ import annotations

import datetime as dt
import getpass
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlplatform.api.facts import facts_html
from mlplatform.config import load_experiment
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from mlplatform.registry.pairs import AliasChange, PairInfo, PairStore


@dataclass(frozen=True)
class Change:
    """What a promotion or a rollback did.

    Attributes:
        done: whether the alias moved.
        reason: one sentence for people.
        production: the version in production afterwards; `None` if there is none.
        servers: how telling each server went.
    """

    experiment: str
    done: bool
    reason: str
    production: int | None
    servers: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        return facts_html(vars(self))


@dataclass(frozen=True)
class Version:
    """One registered version.

    Attributes:
        verdict: what became of it: that it is or was in production, else what the checks and the gate said about it.
        alias_names: the aliases that stand on it.
    """

    version: int
    created_at: dt.datetime
    family: str
    pair_id: str
    run_id: str
    alias_names: tuple[str, ...]
    verdict: str


@dataclass(frozen=True)
class Move:
    """One move of an alias; `when` is unknown for one that was made outside the platform."""

    alias: str
    from_version: int | None
    to_version: int | None
    when: dt.datetime | None
    who: str
    why: str


@dataclass(frozen=True)
class History:
    """The versions of an experiment, newest first, and what its aliases did, oldest first."""

    experiment: str
    versions: tuple[Version, ...]
    moves: tuple[Move, ...]

    def to_frame(self) -> pd.DataFrame:
        """Return the moves of the aliases as a table, oldest first."""
        import pandas as pd

        return pd.DataFrame([asdict(each) for each in self.moves])

    def versions_frame(self) -> pd.DataFrame:
        """Return the versions as a table, newest first."""
        import pandas as pd

        return pd.DataFrame([asdict(each) for each in self.versions])

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)

    def _repr_html_(self) -> str:
        tables = (self.versions_frame(), self.to_frame())
        return "".join(str(table.to_html(index=False, na_rep="")) for table in tables)


def history(experiment: str, *, limit: int = 20, settings: Settings | None = None) -> History:
    """Return the newest versions of an experiment and all that happened to its aliases.

    Parameters:
        limit: how many versions.

    Raises:
        ConfigError: if the experiment is unknown.
        PairNotFoundError: if nothing of it was ever registered.
    """
    from mlplatform.registry.pairs import PREVIOUS, PRODUCTION, STAGING, PairStore

    settings = settings or Settings.from_env()
    name = load_experiment(experiment, settings=settings).registered_name
    store = PairStore.of_existing(settings)
    changes = store.history(name)
    moves = tuple(
        Move(change.alias, change.from_version, change.to_version, change.when, change.who, change.why)
        for change in changes
    )
    stands = store.alias_versions(name)
    aliases: dict[int, list[str]] = {}
    for alias in (PRODUCTION, STAGING, PREVIOUS):
        if alias in stands:
            aliases.setdefault(stands[alias], []).append(alias)
    numbers = store.versions(name)[:limit]
    versions = tuple(
        _version(store.resolve(name, number), tuple(aliases.get(number, ())), changes) for number in numbers
    )
    return History(experiment, versions, moves)


def promote(
    experiment: str,
    version: int | None = None,
    *,
    why: str = "",
    who: str = "",
    dry_run: bool = False,
    settings: Settings | None = None,
) -> Change:
    """Send a version, by default the newest, through all checks and the gate, and into production if they say so.

    Parameters:
        why: for the alias history, and a person's word for a pair that a check finds too good; blank, it is neither.
        who: default: the user of this process.
        dry_run: decide, but change nothing.

    Raises:
        ConfigError, PairNotFoundError: if there is no such experiment or version.
        PairIntegrityError, PromotionRefusedError: if something about the pair is not as it must be.
    """
    from mlplatform.alerts import promoted, send_alert
    from mlplatform.monitoring.retraining import hold_of
    from mlplatform.promotion import promote_version

    settings, store, config = _opened(experiment, settings)
    why = why.strip()
    # A reason is a person's word that the data are known to be broken.
    hold = "" if why else hold_of(config, settings)
    promotion = promote_version(config, store, version, who=who.strip() or _user(), why=why, dry_run=dry_run, hold=hold)
    if promotion.promoted:
        champion = promotion.report.champion
        replaced = champion.version if champion else None
        send_alert(settings, promoted(settings, experiment, promotion.candidate.version, replaced, promotion.reason))
    servers = _tell(settings) if promotion.promoted else ()
    return Change(experiment, promotion.promoted, promotion.reason, promotion.production, servers)


def rollback(
    experiment: str, version: int | None = None, *, why: str = "", who: str = "", settings: Settings | None = None
) -> Change:
    """Put an earlier pair, by default the previous one, back into production, and tell the servers.

    Raises:
        ConfigError, PairNotFoundError: if there is no such experiment or version.
        PairIntegrityError: if the pair does not answer as it did when it was registered.
    """
    from mlplatform.alerts import rolled_back, send_alert
    from mlplatform.promotion import roll_back

    settings, store, config = _opened(experiment, settings)
    asked_by = who.strip() or _user()
    done = roll_back(
        store,
        experiment,
        config.registered_name,
        to=version,
        who=asked_by,
        why=why.strip() or f"asked for by {asked_by}",
    )
    send_alert(settings, rolled_back(settings, experiment, done.pair.version, done.replaced))
    replaced = f"in the place of version {done.replaced}" if done.replaced else "where none was"
    reason = f"{done.pair.name} version {done.pair.version} is in production again, {replaced}"
    return Change(experiment, True, reason, done.pair.version, _tell(settings))


def _opened(experiment: str, settings: Settings | None) -> tuple[Settings, PairStore, Any]:
    from mlplatform.registry.pairs import PairStore

    settings = settings or Settings.from_env()
    return settings, PairStore.of_existing(settings), load_experiment(experiment, settings=settings)


def _tell(settings: Settings) -> tuple[str, ...]:
    from mlplatform.promotion import notify_servers

    return tuple(notice.outcome for notice in notify_servers(settings))


def _version(pair: PairInfo, aliases: tuple[str, ...], changes: Sequence[AliasChange]) -> Version:
    from mlplatform.registry.pairs import PRODUCTION, outcome

    return Version(
        version=pair.version,
        created_at=pair.created_at,
        family=pair.tags.get("family", ""),
        pair_id=pair.pair_id,
        run_id=pair.run_id,
        alias_names=aliases,
        verdict="is in production" if PRODUCTION in aliases else outcome(pair, changes),
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that has no name.
        return "command line"
