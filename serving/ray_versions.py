"""What replicas hold per version of a pair: the reference that travels with calls, and what was loaded for it.

The version to use travels with every call, so replicas can never mix two pairs: one that does not hold that version
loads it aside, and keeps the last few.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from mlplatform.registry.pairs import PairInfo
from mlplatform.settings import Settings
from serving.bundle import BundleLoader
from serving.concurrency import Workers
from serving.tracing import Carrier, carrier

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Those of champion and challenger, and the ones before them.
VERSIONS_KEPT = 4


@dataclass(frozen=True)
class PairRef:
    """Which pair a call is about; small, because it travels with every call.

    Attributes:
        trace: headers of the trace that the call belongs to, if it is traced.
    """

    experiment: str
    version: int
    pair_id: str
    trace: Carrier | None = field(default=None, compare=False)

    @classmethod
    def of(cls, pair: PairInfo) -> PairRef:
        """Return the reference to a pair."""
        return cls(pair.name, pair.version, pair.pair_id, carrier())


class VersionCache(Generic[T]):
    """What a replica holds per version: loaded on demand, once, in a thread; the last few of an experiment are kept."""

    def __init__(self, load: Callable[[PairRef], T]) -> None:
        self._load = load
        self._workers = Workers(1)
        self._held: OrderedDict[PairRef, T] = OrderedDict()
        self._loads: dict[PairRef, asyncio.Task[T]] = {}

    async def get(self, ref: PairRef) -> T:
        """Return what belongs to a version; raises what its load raises, and tries again on the next call."""
        if ref in self._held:
            self._held.move_to_end(ref)
            return self._held[ref]
        if ref not in self._loads:
            self._loads[ref] = asyncio.create_task(self._loaded(ref))
        # Shielded: a client that goes away must not cancel a load that others wait for.
        return await asyncio.shield(self._loads[ref])

    def preload(self, ref: PairRef) -> T:
        """Load a version before there is anyone to ask for it; blocks, and raises what the load raises."""
        loaded = self._load(ref)
        self._hold(ref, loaded)
        return loaded

    async def _loaded(self, ref: PairRef) -> T:
        try:
            loaded = await self._workers.run(self._load, ref)
            self._hold(ref, loaded)
        finally:
            del self._loads[ref]
        return loaded

    def _hold(self, ref: PairRef, loaded: T) -> None:
        self._held[ref] = loaded
        mine = [other for other in self._held if other.experiment == ref.experiment]
        for other in mine[:-VERSIONS_KEPT]:
            del self._held[other]


class Loaders:
    """Loaders of pairs, one per experiment, made when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaders: dict[str, BundleLoader] = {}

    def of(self, ref: PairRef) -> BundleLoader:
        """Return the loader of the experiment that a pair belongs to."""
        return self._named(ref.experiment)

    def preload(self, preload: Callable[[PairRef], object]) -> None:
        """Have what is in production now loaded, so that a new replica does not begin with requests that wait for it.

        What cannot be found or loaded is only logged: whoever asks for it later is told.
        """
        for name in self._settings.experiments or (self._settings.experiment,):
            try:
                preload(PairRef.of(self._named(name).production()))
            except Exception as error:
                logger.warning("nothing of %s is loaded yet: %s", name, error)

    def _named(self, experiment: str) -> BundleLoader:
        if experiment not in self._loaders:
            settings = replace(self._settings, experiment=experiment)
            self._loaders[experiment] = BundleLoader(settings, settings.replica_pairs_dir)
        return self._loaders[experiment]
