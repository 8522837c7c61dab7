"""Errors of the feature store. Every message names what was asked for, what was found, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
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
        more = f" and {len(self.entities) - SHOWN_IDS} more" if len(self.entities) > SHOWN_IDS else ""
        super().__init__(f"dataset {dataset!r} has no entities {shown}{more}; materialize them or ask for known ones")


class EntityTypeError(FeatureStoreError):
    """An entity id of the wrong type, such as the text "1" where ids are whole numbers."""
