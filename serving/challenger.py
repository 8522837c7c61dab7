"""The challenger: the pair behind another alias that works on the traffic of the one in production.

It is looked for whenever the server looks at the production alias, loaded aside, verified and warmed up as a champion
is, and held as one reference. Whatever becomes of it concerns nobody else: without it production answers everything.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from mlplatform.config import ChallengerConfig
from mlplatform.registry.pairs import PairInfo, PairNotFoundError
from serving.backend import Challenger, Served
from serving.errors import ServingError

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A pair that cannot be loaded is tried again, because its files may come back; seldom, because a load takes a core.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 15.0, 600.0
_LOAD_DEADLINE_S = 300.0
# A reload that was asked for waits so long, in seconds, for the challenger to be loaded too.
CHALLENGER_PATIENCE_S = 30.0


@dataclass(frozen=True)
class _Failure:
    """A load that failed, and when to try again."""

    pair_id: str
    pause_s: float
    not_before: float


class ChallengerHolder(Generic[T]):
    """Holds what answers for the challenger.

    Parameters:
        experiment: what log lines call it.
        find: returns the pair behind an alias; while the registry is away, what is kept of it here if that may be.
        load: verifies and loads a pair.
        describe: returns what clients are told about what was loaded.

    Attributes:
        outcomes: how often a look ended as `swapped`, `unchanged`, `off` or `failed`.
    """

    def __init__(
        self,
        experiment: str,
        find: Callable[[str, bool], Awaitable[PairInfo]],
        load: Callable[[PairInfo], Awaitable[T]],
        describe: Callable[[T], Served],
    ) -> None:
        self._experiment, self._find, self._load, self._describe = experiment, find, load, describe
        self._config: ChallengerConfig | None = None
        self._current: T | None = None
        self._served: Served | None = None
        self._reason = "it is being loaded"
        self._failure: _Failure | None = None
        self._has_found = False
        self._look: asyncio.Task[None] | None = None
        self.outcomes: Counter[str] = Counter()

    def state(self, champion: PairInfo | None) -> Challenger | None:
        """Return the challenger beside a champion; `None` if the experiment has none."""
        if self._config is None:
            return None
        served, reason = self._served, self._reason
        # At the very moment of a promotion, whenever the next look may be.
        if served is not None and champion is not None and served.pair.pair_id == champion.pair_id:
            served, reason = None, _is_champion(self._config.alias)
        return Challenger(self._config, served, None if served else reason)

    def require(self) -> T:
        """Return what answers for the challenger.

        Raises:
            ServingError: 503 if there is none now.
        """
        if self._current is None:
            raise ServingError(503, "no_challenger", self._reason)
        return self._current

    def look(self, config: ChallengerConfig | None, champion: Served) -> None:
        """Begin to look which pair is the challenger, unless a look is under way; returns at once.

        Parameters:
            config: of the experiment, as it is now.
        """
        self._configure(config)
        if config is not None and (self._look is None or self._look.done()):
            self._look = asyncio.create_task(self._looked(config, champion))

    async def settled(self, timeout_s: float) -> None:
        """Wait until the look under way has ended, but no longer than that."""
        if self._look is not None:
            await asyncio.wait([self._look], timeout=timeout_s)

    def changed(self, change: Callable[[T], T]) -> None:
        """Replace what answers by what `change` makes of it: the same pair under other policies."""
        if self._current is not None:
            self._current = change(self._current)

    async def close(self) -> None:
        """Stop looking."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)

    def _configure(self, config: ChallengerConfig | None) -> None:
        if config is None or (self._config is not None and config.alias != self._config.alias):
            self._turn_off("it is being loaded")
        self._config = config

    async def _looked(self, config: ChallengerConfig, champion: Served) -> None:
        try:
            async with asyncio.timeout(_LOAD_DEADLINE_S):
                outcome = await self._find_and_load(config, champion)
        except Exception as error:
            # Whatever it is: requests are answered by production, and the next look may find it gone.
            outcome = "failed"
            logger.warning("%s: looking for the challenger failed: %s", self._experiment, _told(error))
        self.outcomes[outcome] += 1

    async def _find_and_load(self, config: ChallengerConfig, champion: Served) -> str:
        try:
            # Only a start may go by what is kept: later on it may have lost the alias since.
            pair = await self._find(config.alias, not self._has_found)
        except PairNotFoundError:
            self._has_found = True
            return self._turn_off(f"no pair has the alias {config.alias!r}")
        self._has_found = True
        if pair.pair_id == champion.pair.pair_id:
            return self._turn_off(_is_champion(config.alias))
        if self._served is not None and self._served.pair.pair_id == pair.pair_id:
            return "unchanged"
        failure = self._failure
        if failure is not None and failure.pair_id == pair.pair_id and time.monotonic() < failure.not_before:
            return "failed"
        return await self._loaded(pair, champion)

    async def _loaded(self, pair: PairInfo, champion: Served) -> str:
        name = f"version {pair.version} of {pair.name!r}"
        try:
            loaded = await self._load(pair)
        except Exception as error:
            before = self._failure.pause_s if self._failure and self._failure.pair_id == pair.pair_id else 0.0
            pause_s = min(max(_FIRST_PAUSE_S, 2 * before), _LONGEST_PAUSE_S)
            self._failure = _Failure(pair.pair_id, pause_s, time.monotonic() + pause_s)
            self._turn_off(f"{name} cannot be loaded: {_told(error)}")
            logger.warning("%s: production answers all: %s", self._experiment, self._reason)
            return "failed"
        self._failure = None
        served = self._describe(loaded)
        if (found := served.form) != (expected := champion.form):
            told = f"{name} answers in another form than production: {found} instead of {expected}"
            return self._turn_off(f"{told}; register what changed under a new experiment name")
        self._current, self._served, self._reason = loaded, served, ""
        logger.info("%s: %s, pair %s, is the challenger", self._experiment, name, pair.pair_id)
        return "swapped"

    def _turn_off(self, reason: str) -> str:
        self._current, self._served, self._reason = None, None, reason
        return "off"


def _told(error: Exception) -> str:
    return error.message if isinstance(error, ServingError) else f"{type(error).__name__}: {error}"


def _is_champion(alias: str) -> str:
    return f"the pair with the alias {alias!r} is the one in production"
