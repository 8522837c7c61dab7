"""Errors of the feature store. Every message names what was asked for, what was found, and what to do."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SHOWN_IDS = 10


class FeatureStoreError(RuntimeError):
    """The feature store cannot do what was asked."""


class UnknownEntityError(FeatureStoreError, LookupError):
    """Entities that the feature store does not hold.

    Attributes:
        entities: the unknown ids, in the order they were asked for.
    """

    def __init__(self, dataset: str, entities: Sequence[Any]) -> None:
        self.entities = tuple(entities)
        shown = ", ".join(repr(entity) for entity in self.entities[:SHOWN_IDS])
        super().__init__(
            f"dataset {dataset!r} has no entities {shown}{_more(self.entities)}; materialize them or ask for known ones"
        )


class ShortWindowError(FeatureStoreError):
    """Entities whose stored rows before what is known of the future are fewer than a forecast reads.

    Attributes:
        entities: their ids, in the order they were asked for.
    """

    def __init__(self, entities: Sequence[Any], found: int, needed: int) -> None:
        self.entities = tuple(entities)
        super().__init__(
            f"the stored window of entity {self.entities[0]!r} has {found} rows before what is known of the future, "
            f"but {needed} are needed; make the dataset's window_steps longer by the steps that are known beforehand"
        )


class EntityTypeError(FeatureStoreError):
    """An entity id of the wrong type, such as the text "1" where ids are whole numbers."""


@dataclass(frozen=True)
class StaleEntity:
    """An entity whose features are too old: its id, the event time (UTC) of its newest row, and the age of that.

    Both are `None` where the dataset has no time column.
    """

    entity: Any
    event_time: dt.datetime | None
    age: dt.timedelta | None

    @property
    def found(self) -> str:
        """Event time and age as text, to the second."""
        if self.event_time is None or self.age is None:
            return "of unknown age, because the dataset has no time_column"
        event_time = self.event_time.isoformat(timespec="seconds")
        return f"newest row {event_time}, age {dt.timedelta(seconds=round(self.age.total_seconds()))}"

    def __str__(self) -> str:
        return f"{self.entity!r} ({self.found})"


class StaleFeaturesError(FeatureStoreError):
    """Features older than the experiment's staleness policy allows.

    Attributes:
        stale: the entities concerned, in the order they were asked for.
        limit: the greatest age allowed.
    """

    def __init__(self, dataset: str, stale: Sequence[StaleEntity], limit: dt.timedelta) -> None:
        self.stale = tuple(stale)
        self.limit = limit
        shown = ", ".join(map(str, self.stale[:SHOWN_IDS]))
        super().__init__(
            f"dataset {dataset!r}: features older than the limit of {limit}: {shown}{_more(self.stale)}; bring newer "
            "rows in (ingest and materialise online_features), or raise staleness.max_age or set staleness.action to "
            "flag in the experiment"
        )


class StoreUnavailableError(FeatureStoreError):
    """A store that does not answer, after as many tries as make sense.

    The message holds neither the store's own error text nor an address with credentials.

    Attributes:
        store: which store, for example "the online store (Redis at cache:6379)".
        cause: name of the last error's class.
        tries: how often it was asked.
        seconds: for how long.
    """

    def __init__(self, store: str, error: BaseException, tries: int, seconds: float, action: str) -> None:
        self.store = store
        self.cause = type(error).__name__
        self.tries = tries
        self.seconds = seconds
        super().__init__(f"{store} does not answer: {self.attempts}; {action}")

    @property
    def attempts(self) -> str:
        """How often and for how long the store was asked, and the last error."""
        times = "1 try" if self.tries == 1 else f"{self.tries} tries"
        return f"{times} in {self.seconds:.2f} s, at last {self.cause}"


class MissingOnlineStoreError(sqlite3.OperationalError):
    """The SQLite file of the online store, or a table in it, is not there. The message names the file and the cause."""


def _more(items: Sequence[Any]) -> str:
    return f" and {len(items) - SHOWN_IDS} more" if len(items) > SHOWN_IDS else ""
