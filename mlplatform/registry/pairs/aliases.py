"""Aliases and their history, which a crash cannot tear apart.

The history of an alias is a chain of entries in the tags of `<name>_model`, one tag each. An entry is written before
the alias moves and says from which version to which. The alias itself decides whether that happened: if it is still
where the last entry starts, the entry is void, and the next writer drops it. A third write marks an entry as done, so
that a change made later by hand, in MLflow's UI, cannot make it look void. Such changes show as breaks in the chain and
are reported as made outside the platform.

`previous` is not stored but follows from the history of `production`: it is where the last change came from. So the two
change in one write.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlplatform.registry.pairs.info import PREVIOUS, PRODUCTION, ROLES, registered_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

    from mlplatform.registry.pairs.lock import Ticket

logger = logging.getLogger(__name__)

PREFIX = "alias_history."
# MLflow reads all tags of a model at once, so the record of each alias is kept within bounds.
KEPT_CHANGES = 500
# A tag holds 5,000 characters.
WHO_LENGTH, WHY_LENGTH = 200, 1000
OUTSIDE = "changed outside the platform"


@dataclass(frozen=True)
class AliasChange:
    """One move of an alias.

    Attributes:
        alias: its name.
        number: its place in the history of the alias; 0 for a change made outside the platform.
        from_version, to_version: where it pointed before and after; None is nowhere.
        who: a person, job or service; "unknown" for a change made outside the platform.
        when: in UTC; None if unknown.
        why: the reason given.
    """

    alias: str
    number: int
    from_version: int | None
    to_version: int | None
    who: str
    when: dt.datetime | None
    why: str


@dataclass(frozen=True)
class _Entry:
    change: AliasChange
    is_done: bool

    @property
    def key(self) -> str:
        return f"{PREFIX}{self.change.alias}.{self.change.number:06d}"

    def to_json(self) -> str:
        change = self.change
        return json.dumps(
            {
                "from": change.from_version,
                "to": change.to_version,
                "who": change.who,
                "when": change.when.isoformat() if change.when else None,
                "why": change.why,
                "done": self.is_done,
            },
            ensure_ascii=False,
        )

    @classmethod
    def from_tag(cls, key: str, text: str) -> _Entry:
        alias, number = key.removeprefix(PREFIX).rsplit(".", 1)
        value = json.loads(text)
        when = dt.datetime.fromisoformat(value["when"])
        change = AliasChange(alias, int(number), value["from"], value["to"], value["who"], when, value["why"])
        return cls(change, value["done"])


@dataclass(frozen=True)
class Snapshot:
    """The aliases and histories of one registered model at one moment.

    Attributes:
        stored: alias -> version, as MLflow has them.
        entries: alias -> entries, oldest first.
    """

    stored: Mapping[str, int]
    entries: Mapping[str, tuple[_Entry, ...]]

    def is_void(self, entry: _Entry) -> bool:
        """Return whether the last entry of an alias announces a change that did not happen."""
        return not entry.is_done and self.stored.get(entry.change.alias) == entry.change.from_version

    def history(self, alias: str) -> list[AliasChange]:
        """Return the changes of an alias that happened, oldest first."""
        entries = list(self.entries.get(alias, ()))
        if entries and self.is_void(entries[-1]):
            entries.pop()
        changes: list[AliasChange] = []
        current = entries[0].change.from_version if entries else None
        for entry in entries:
            if entry.change.from_version != current:
                changes.append(_outside(alias, current, entry.change.from_version))
            changes.append(entry.change)
            current = entry.change.to_version
        if self.stored.get(alias) != current:
            changes.append(_outside(alias, current, self.stored.get(alias)))
        return changes

    def timeline(self) -> list[AliasChange]:
        """Return the changes of all aliases, oldest first."""
        dated = []
        for alias in sorted({*self.entries, *self.stored} - {PREVIOUS}):
            until = dt.datetime.max.replace(tzinfo=dt.UTC)
            for change in reversed(self.history(alias)):
                until = change.when or until
                dated.append((until, change))
        dated.reverse()
        # Sorting keeps the order of what has the same time.
        return [change for _, change in sorted(dated, key=lambda pair: pair[0])]

    @property
    def current(self) -> dict[str, int]:
        """Every alias and the version it stands for, `previous` as it follows from the history."""
        found = {alias: version for alias, version in self.stored.items() if alias != PREVIOUS}
        changes = self.history(PRODUCTION)
        if changes and changes[-1].from_version is not None:
            found[PREVIOUS] = changes[-1].from_version
        return found

    def next_number(self, alias: str) -> int:
        """Return the number of the next change of an alias; all before it must be settled."""
        return 1 + max((entry.change.number for entry in self.entries.get(alias, ())), default=0)

    def promoted_at(self, version: int) -> dt.datetime | None:
        """Return when a version last became the production version, as far as that is known."""
        times = [change.when for change in self.history(PRODUCTION) if change.to_version == version]
        return times[-1] if times else None


def end_in_production(changes: Sequence[AliasChange], version: int) -> tuple[str, dt.datetime | None] | None:
    """Say how the last time of a version in production ended, as the end of a sentence about it, and when.

    Parameters:
        changes: of any aliases, those of each oldest first.

    Returns:
        None if it never left production; the time is None if unknown.
    """
    moves = [change for change in changes if change.alias == PRODUCTION]
    place = max((place for place, move in enumerate(moves) if move.from_version == version), default=None)
    if place is None:
        return None
    left, before = moves[place], moves[:place]
    until = f"{left.when:%Y-%m-%d %H:%M} UTC" if left.when else f"it was {left.why}"
    # What was in production before comes back by a rollback.
    if any(left.to_version in (move.from_version, move.to_version) for move in before if left.to_version is not None):
        ended = f"then rolled back to version {left.to_version}{f': {left.why}' if left.when and left.why else ''}"
    else:
        ended = f"replaced by {'none' if left.to_version is None else f'version {left.to_version}'}"
    return f"was in production until {until}, {ended}", left.when


class Aliases:
    """Reads and moves the aliases of the pairs called `name`. Moving needs the writer's ticket."""

    def __init__(self, client: MlflowClient, name: str) -> None:
        self._client, self._name = client, name
        self._model = registered_model(name, "model")

    def read(self) -> Snapshot:
        """Return aliases and histories in one read."""
        found = self._client.get_registered_model(self._model)
        entries = [_Entry.from_tag(key, text) for key, text in found.tags.items() if key.startswith(PREFIX)]
        entries.sort(key=lambda entry: entry.change.number)
        histories = {
            alias: tuple(entry for entry in entries if entry.change.alias == alias)
            for alias in {entry.change.alias for entry in entries}
        }
        return Snapshot(_stored(found), histories)

    def move(self, ticket: Ticket, alias: str, version: int, *, who: str, why: str) -> None:
        """Point an alias at a version, with an entry in its history, and bring the mirrors in line."""
        snapshot = self.read()
        if self._settle(snapshot):
            snapshot = self.read()
        current = snapshot.stored.get(alias)
        if current != version:
            now = dt.datetime.now(dt.UTC)
            change = AliasChange(alias, snapshot.next_number(alias), current, version, who[:WHO_LENGTH], now, "")
            entry = _Entry(replace(change, why=why[:WHY_LENGTH]), is_done=False)
            ticket.keep()
            self._write(entry)
            # The commit point.
            self._client.set_registered_model_alias(self._model, alias, str(version))
            self._write(replace(entry, is_done=True))
            self._forget(snapshot, alias)
        self.mirror()

    def settle(self) -> list[str]:
        """Finish the record of changes that were cut off; return what was done."""
        return self._settle(self.read())

    def _settle(self, snapshot: Snapshot) -> list[str]:
        done = []
        for alias, entries in snapshot.entries.items():
            last = entries[-1]
            if last.is_done:
                continue
            if snapshot.is_void(last):
                self._client.delete_registered_model_tag(self._model, last.key)
                done.append(f"dropped the history entry of a move of {alias!r} that did not happen")
            else:
                self._write(replace(last, is_done=True))
                done.append(f"completed the history entry of the last move of {alias!r}")
        return done

    def mirror(self) -> list[str]:
        """Bring the aliases of the other two models, and the alias `previous`, in line; return what was done."""
        snapshot, done = self.read(), []
        wanted = snapshot.current
        for role in reversed(ROLES):
            model = registered_model(self._name, role)
            found = snapshot.stored if model == self._model else _stored(self._client.get_registered_model(model))
            for alias in sorted({*wanted, *found}):
                if wanted.get(alias) == found.get(alias):
                    continue
                if self._set_mirror(model, alias, wanted.get(alias)):
                    done.append(f"moved {alias!r} of {model} from {found.get(alias)} to {wanted.get(alias)}")
        return done

    def _set_mirror(self, model: str, alias: str, version: int | None) -> bool:
        """Set or remove a mirror; return False if the version it belongs on does not exist."""
        from mlflow.exceptions import MlflowException

        if version is None:
            self._client.delete_registered_model_alias(model, alias)
            return True
        try:
            self._client.set_registered_model_alias(model, alias, str(version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            # A damaged pair must not keep anyone from moving on to a whole one.
            logger.warning("%s has no version %d, so its alias %r stays where it is", model, version, alias)
            return False
        return True

    def _write(self, entry: _Entry) -> None:
        self._client.set_registered_model_tag(self._model, entry.key, entry.to_json())

    def _forget(self, snapshot: Snapshot, alias: str) -> None:
        for entry in snapshot.entries.get(alias, ())[: -KEPT_CHANGES + 1]:
            self._client.delete_registered_model_tag(self._model, entry.key)


def _stored(model: RegisteredModel) -> dict[str, int]:
    return {alias: int(version) for alias, version in model.aliases.items()}


def _outside(alias: str, from_version: int | None, to_version: int | None) -> AliasChange:
    return AliasChange(alias, 0, from_version, to_version, "unknown", None, OUTSIDE)
