"""What replicas hold per version of a pair: the reference that travels with calls, and what was loaded for it.

The version to use travels with every call, so replicas can never mix two pairs: one that does not hold that version
loads it aside, and keeps the last two.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from mlplatform.registry.pairs import PairInfo
from mlplatform.settings import Settings
from serving.bundle import BundleLoader
from serving.concurrency import Workers

T = TypeVar("T")

VERSIONS_KEPT = 2


@dataclass(frozen=True)
class PairRef:
    """Which pair a call is about; small, because it travels with every call."""

    experiment: str
    version: int
    pair_id: str

    @classmethod
    def of(cls, pair: PairInfo) -> PairRef:
        """Return the reference to a pair."""
        return cls(pair.name, pair.version, pair.pair_id)


class VersionCache(Generic[T]):
    """What a replica holds per version: loaded on demand, once, in a thread; an experiment's last two used are kept."""

    def __init__(self, load: Callable[[PairRef], T]) -> None:
        self._load = load
        self._workers = Workers(1)
        self._loads: OrderedDict[PairRef, asyncio.Task[T]] = OrderedDict()

    async def get(self, ref: PairRef) -> T:
        """Return what belongs to a version; raises what its load raises, and tries again on the next call."""
        if ref not in self._loads:
            self._loads[ref] = asyncio.create_task(self._workers.run(self._load, ref))
        self._loads.move_to_end(ref)
        mine = [other for other in self._loads if other.experiment == ref.experiment]
        for other in mine[:-VERSIONS_KEPT]:
            del self._loads[other]
        load = self._loads[ref]
        try:
            # Shielded: a client that goes away must not cancel a load that others wait for.
            return await asyncio.shield(load)
        except Exception:
            if self._loads.get(ref) is load:
                del self._loads[ref]
            raise


class Loaders:
    """Loaders of pairs, one per experiment, made when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaders: dict[str, BundleLoader] = {}

    def of(self, ref: PairRef) -> BundleLoader:
        """Return the loader of the experiment that a pair belongs to."""
        if ref.experiment not in self._loaders:
            self._loaders[ref.experiment] = BundleLoader(replace(self._settings, experiment=ref.experiment))
        return self._loaders[ref.experiment]
