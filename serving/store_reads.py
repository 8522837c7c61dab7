"""Reads of the feature store that requests share: those that wait in the same moment for one pair are one read.

A read costs much the same for one entity as for several. What is shared must not be seen: whom a shared read fails for
is asked about alone, unless it is the store itself that fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from mlplatform.features import NOW
from mlplatform.features.retrieval import FeaturePanel
from mlplatform.settings import Settings
from serving.backend import EntityId
from serving.batching import answered_in_groups
from serving.bundle import Bundle
from serving.errors import ServingError
from serving.inference import read_panel

# Entities of a request that shares its read; one with more costs enough to have a thread to itself.
LARGEST_SHARED = 8


@dataclass(frozen=True)
class StoreRead:
    """What one request reads: features of entities at a time point, as many rows as the pair of a bundle needs.

    Only reads at the time point "now" share.
    """

    bundle: Bundle
    entities: Sequence[EntityId]
    settings: Settings
    time_point: str = NOW

    def panel(self) -> FeaturePanel:
        """Return the features; raises as `read_panel` does."""
        bundle = self.bundle
        return read_panel(
            bundle.pair.contract,
            bundle.dataset,
            bundle.read_staleness,
            self.entities,
            self.time_point,
            self.settings,
            bundle.rules.fallback.short_series,
        )


def read_all(reads: Sequence[StoreRead]) -> list[FeaturePanel | Exception]:
    """Return the features that every request reads, or what keeps it from having them."""
    return answered_in_groups(reads, lambda read: id(read.bundle), _together, StoreRead.panel)


def _together(group: Sequence[StoreRead]) -> list[FeaturePanel | Exception] | None:
    """Return the features of reads for one bundle; `None` if something is wrong with one of them, or there is one."""
    if len(group) == 1:
        return None
    entities = list(dict.fromkeys(chain.from_iterable(read.entities for read in group)))
    try:
        whole = replace(group[0], entities=entities).panel()
    except ServingError as error:
        # Of a store that fails, every one of them would wait as long for the same word.
        return [error] * len(group) if error.status >= 500 else None
    place_of = {entity: place for place, entity in enumerate(entities)}
    return [whole.of_entities(np.array([place_of[entity] for entity in read.entities])) for read in group]
