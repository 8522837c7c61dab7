"""The pair that a server answers with: resolved by its alias, verified, loaded aside, and held as one reference.

A `Bundle` never changes. A request takes the reference once and keeps it to its end, so a swap in the middle can never
mix two pairs, and nothing has to wait for it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property

from mlplatform.config import DatasetConfig, ExperimentConfig, StalenessConfig, load_experiment
from mlplatform.registry import Forecaster
from mlplatform.registry.pairs import PairInfo, PairNotFoundError, PairStore
from mlplatform.settings import Settings
from serving.backend import ReloadReport
from serving.concurrency import Coalescer, Workers
from serving.errors import ServingError
from serving.rules import RowRules

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bundle:
    """A verified pair, ready to answer, and what the experiment's configuration says about its features.

    Attributes:
        pair: what is served.
        forecaster: the loaded pair.
        dataset: the dataset whose columns it reads.
        staleness: how old features may be. From the configuration and not from the pair: a changed policy holds from
            the next reload on, without training anew.
        rules: what rows of requests may hold; their policy comes from the configuration as well.
    """

    pair: PairInfo
    forecaster: Forecaster
    dataset: DatasetConfig
    staleness: StalenessConfig
    rules: RowRules


class BundleLoader:
    """Finds and loads pairs of one experiment. All methods block; call them from a worker thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.experiment = settings.experiment

    @cached_property
    def _store(self) -> PairStore:
        return PairStore(self._settings)

    def production(self) -> PairInfo:
        """Return the pair that is in production now.

        Raises:
            ServingError: 503 if there is none, with the reason.
        """
        try:
            return self._store.resolve(self.experiment, "production")
        except PairNotFoundError as error:
            raise no_production_pair(self.experiment, self._store.refusal(self.experiment)) from error

    def version(self, version: int, pair_id: str) -> PairInfo:
        """Return a version of the pair, as long as it is still the same pair.

        Raises:
            PairNotFoundError: if the registry has no such version, or another pair under its number.
        """
        pair = self._store.resolve(self.experiment, str(version))
        if pair.pair_id != pair_id:
            raise PairNotFoundError(
                f"version {version} of {self.experiment!r} is pair {pair.pair_id}, but pair {pair_id} was asked for"
            )
        return pair

    def load(self, pair: PairInfo) -> Bundle:
        """Verify and load a pair.

        Raises:
            PairIntegrityError: if an artifact is not what was registered.
        """
        config = self.config()
        forecaster = self._store.load(pair)
        rules = RowRules.of(forecaster, config.dataset, config.requests, config.observation)
        return Bundle(pair, forecaster, config.dataset, config.staleness, rules)

    def config(self) -> ExperimentConfig:
        """Return the experiment's configuration as it is now."""
        return load_experiment(self.experiment, settings=self._settings)


class BundleHolder:
    """Holds the bundle in use and swaps it.

    Attributes:
        current: the bundle that answers new requests; `None` until one could be loaded.
        reason: why there is none.
    """

    def __init__(self, loader: BundleLoader) -> None:
        self.current: Bundle | None = None
        self.reason = f"the production pair of {loader.experiment!r} is being loaded"
        self._loader = loader
        # One thread of its own: reloads must not take a worker away from requests.
        self._workers = Workers(1)
        self.reload = Coalescer(self._reload)

    def require(self) -> Bundle:
        """Return the current bundle.

        Raises:
            ServingError: 503 if there is none.
        """
        if self.current is None:
            raise ServingError(503, "no_production_pair", self.reason)
        return self.current

    def close(self) -> None:
        """Let the loading thread end; the bundle stays."""
        self._workers.close()

    async def _reload(self) -> ReloadReport:
        previous = self.current
        try:
            bundle = await self._workers.run(self._load, previous)
        except Exception as error:
            failure = reload_failure(error, previous.pair if previous else None)
            self.reason = failure.message
            raise failure from error
        self.current = bundle
        return ReloadReport(bundle.pair, previous.pair.version if previous else None)

    def _load(self, previous: Bundle | None) -> Bundle:
        pair = self._loader.production()
        if previous is not None and previous.pair.pair_id == pair.pair_id:
            config = self._loader.config()
            rules = RowRules.of(previous.forecaster, config.dataset, config.requests, config.observation)
            if (config.staleness, rules) == (previous.staleness, previous.rules):
                return previous
            return replace(previous, staleness=config.staleness, rules=rules)
        bundle = self._loader.load(pair)
        inference = bundle.forecaster.model.inference
        logger.info("loaded version %d of %r, pair %s, %s", pair.version, pair.name, pair.pair_id, inference)
        return bundle


def no_production_pair(experiment: str, refusal: str | None) -> ServingError:
    """Return the error of a server without a model.

    Parameters:
        refusal: what kept the newest pair out of production; `None` if nothing was ever trained.
    """
    found = f"run train_{experiment}"
    if refusal is not None:
        found = f"{refusal}; run train_{experiment} again, or promote_{experiment} for another version"
    message = f"no production pair for {experiment}: {found}, then POST /admin/reload or restart the server"
    return ServingError(503, "no_production_pair", message)


def reload_failure(error: Exception, kept: PairInfo | None) -> ServingError:
    """Return the error of a reload that failed, saying what is still served."""
    if kept is None:
        if isinstance(error, ServingError):
            return error
        return ServingError(503, "reload_failed", f"no pair could be loaded: {_described(error)}")
    return ServingError(503, "reload_failed", f"version {kept.version} is still served: {_described(error)}")


def _described(error: Exception) -> str:
    return str(error) if isinstance(error, ServingError) else f"{type(error).__name__}: {error}"
