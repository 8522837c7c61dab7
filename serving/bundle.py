"""The pair that a server answers with: resolved by its alias, verified, loaded aside, and held as one reference.

A `Bundle` never changes. A request takes the reference once and keeps it to its end, so a swap in the middle can never
mix two pairs, and nothing has to wait for it. The pair before the current one stays loaded, so a rollback is a matter
of moments; and it is kept on disk, so a start needs no registry.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

import numpy as np

from mlplatform.config import (
    AnsweringConfig,
    ConfigError,
    DatasetConfig,
    ExperimentConfig,
    StalenessConfig,
    load_experiment,
)
from mlplatform.datamodule import Float32
from mlplatform.registry import (
    FallbackPolicy,
    Forecaster,
    RegistryAwayError,
    Scales,
    input_panel,
    require_answer,
    scales_of_pair,
)
from mlplatform.registry.pairs import (
    Fetch,
    KeptPairs,
    PairInfo,
    PairIntegrityError,
    PairNotFoundError,
    PairStore,
    PairUnreadableError,
    differences,
    load_with_example,
)
from mlplatform.settings import Settings, sqlite_file, without_credentials
from serving.backend import Choice, ReloadReport, Served
from serving.batching import is_batchable
from serving.concurrency import Coalescer, Workers
from serving.errors import ServingError
from serving.examples import example_of
from serving.rules import RowRules

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


T = TypeVar("T")
Args = TypeVarTuple("Args")


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
        is_batchable: whether answers have the same bits in company as alone, so that requests may share a call.
        example: the pair's stored example, as a client would send it.
        answering: what is done beside answering; from the configuration as well.
    """

    pair: PairInfo
    forecaster: Forecaster
    dataset: DatasetConfig
    staleness: StalenessConfig
    rules: RowRules
    is_batchable: bool = False
    example: tuple[dict[str, Any], ...] = ()
    answering: AnsweringConfig = field(default_factory=AnsweringConfig)

    def with_policies_for(self, other: Bundle) -> Bundle:
        """Return another bundle of the experiment under the policies of this one."""
        rules = RowRules.of(other.forecaster, self.dataset, self.rules.policy, self.rules.fallback)
        return replace(other, staleness=self.staleness, rules=rules, answering=self.answering)

    @property
    def read_staleness(self) -> StalenessConfig:
        """How old features may be when they are read: of any age, where something may stand in for a forecast."""
        return readable(self.staleness, self.answering)

    def served(self) -> Served:
        """Return what clients are told about it."""
        forecaster = self.forecaster
        return Served(
            pair=self.pair,
            types=forecaster.preprocessor.columns,
            max_age=self.staleness.max_age,
            coverages=forecaster.coverages,
            example=self.example,
            inference=forecaster.model.inference,
            names=self.rules.names,
        )


def readable(staleness: StalenessConfig, answering: AnsweringConfig) -> StalenessConfig:
    """Return the policy under which features are read: with a fallback, old ones are judged behind the read."""
    return staleness if answering.fallback == "none" else staleness.model_copy(update={"action": "flag"})


class BundleLoader:
    """Finds and loads pairs of one experiment. All methods block; call them from a worker thread.

    Parameters:
        kept_dir: where pairs are kept; default: that of pairs in production.
    """

    def __init__(self, settings: Settings, kept_dir: Path | None = None) -> None:
        self._settings = settings
        self.experiment = settings.experiment
        self._kept = KeptPairs(kept_dir or settings.served_pairs_dir, settings.verify_keys)

    @cached_property
    def _store(self) -> PairStore:
        return PairStore(self._settings)

    @cached_property
    def _looking(self) -> PairStore:
        return PairStore.for_looking(self._settings)

    def production(self) -> PairInfo:
        """Return the pair that is in production now.

        Raises:
            ServingError: 503 if there is none, with the reason.
            RegistryAwayError: if the registry is not there; it is not made by looking for it.
        """
        self._require_registry()
        try:
            return self._store.resolve(self.experiment, "production")
        except PairNotFoundError as error:
            raise self._without_pair() from error

    def _without_pair(self) -> ServingError:
        try:
            self.config()
        except ConfigError as error:
            # Nothing can be trained before that is mended.
            return ServingError(503, "no_production_pair", f"no production pair for {self.experiment}: {error}")
        return no_production_pair(self.experiment, self._store.refusal(self.experiment))

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

    def find(self, choice: Choice) -> PairInfo:
        """Return the pair that a request chooses.

        Raises:
            ServingError: 404 if there is none.
        """
        try:
            return self._store.resolve(self.experiment, choice.ref)
        except PairNotFoundError as error:
            raise ServingError(404, "unknown_version", str(error)) from error

    def kept(self) -> PairInfo | None:
        """Return the pair that was in production when this machine last had word of it; `None` if it never had."""
        return self._kept.last(self.experiment)

    def load(self, pair: PairInfo) -> Bundle:
        """Verify and load a pair, from the registry or else from what is kept of it here, and keep it.

        Raises:
            PairIntegrityError: if an artifact is not what was registered, or the pair answers its stored example
                differently here.
        """
        try:
            self._require_registry()
            bundle = self._bundle(pair, self._store.fetch)
        except (PairUnreadableError, RegistryAwayError):
            kept = self.kept()
            if kept is None or kept.pair_id != pair.pair_id:
                raise
            return self.load_kept(kept)
        try:
            self._kept.keep(pair, self._store.fetch)
        except (OSError, PairIntegrityError) as error:
            logger.warning("a start without the registry would fail: pair %s is not kept: %s", pair.pair_id, error)
        return bundle

    def challenger(self, alias: str, may_be_kept: bool) -> PairInfo:
        """Return the pair behind an alias.

        Parameters:
            may_be_kept: whether, while the registry is away, the pair that was kept last will do.

        Raises:
            PairNotFoundError: if no pair has the alias.
        """
        try:
            self._require_registry()
            return self._store.resolve(self.experiment, alias)
        except (PairNotFoundError, PairIntegrityError):
            raise
        except Exception as error:
            kept = self.kept() if may_be_kept else None
            if kept is None:
                raise
            logger.warning("the registry is away, version %d is taken for %r: %s", kept.version, alias, error)
            return kept

    def alias_versions(self) -> Mapping[str, int]:
        """Return alias -> version of every alias, `previous` among them; empty if nothing was ever registered.

        Raises:
            RegistryAwayError: if the registry is not there.
        """
        self._require_registry()
        try:
            return dict(sorted(self._looking.alias_versions(self.experiment).items()))
        except PairNotFoundError:
            return {}

    def _require_registry(self) -> None:
        database = sqlite_file(self._settings.mlflow_tracking_uri)
        if database is not None and not database.exists():
            raise RegistryAwayError(f"there is no model registry at {database}")
        require_answer(self._settings)

    def load_aside(self, pair: PairInfo) -> Bundle:
        """Verify and load a pair that is not in production; raises as `load`."""
        return self._bundle(pair, self._store.fetch)

    def load_kept(self, pair: PairInfo) -> Bundle:
        """Verify and load a pair that is kept here; raises as `load`."""
        return self._bundle(pair, self._kept.fetch)

    def config(self) -> ExperimentConfig:
        """Return the experiment's configuration as it is now."""
        return load_experiment(self.experiment, settings=self._settings)

    def scales(self, pair: PairInfo) -> Scales | None:
        """Return what the pair's intervals are scaled by now."""
        return scales_of_pair(self._settings, self.experiment, pair.pair_id)

    def _bundle(self, pair: PairInfo, fetch: Fetch) -> Bundle:
        config = self.config()
        forecaster, rows, answer = load_with_example(fetch, pair)
        _check_example(pair, forecaster, rows, answer)
        forecaster = replace(forecaster, interval_scales=self.scales(pair))
        rules = RowRules.of(forecaster, config.dataset, config.requests, FallbackPolicy.of(config))
        batchable = is_batchable(forecaster, input_panel(pair.contract, rows))
        example = example_of(rows, config.dataset)
        return Bundle(pair, forecaster, config.dataset, config.staleness, rules, batchable, example, config.serving)


def _check_example(pair: PairInfo, forecaster: Forecaster, rows: pd.DataFrame, answer: Float32) -> None:
    """Have a pair answer its stored example, which also warms it up: no client waits for a library's first call.

    Raises:
        PairIntegrityError: if it answers something else. Differences in the last bits, as another processor makes them
            in matrix products, are a warning.
    """
    wrong = differences(forecaster, rows, answer)
    if not wrong:
        return
    found = forecaster.predict(input_panel(pair.contract, rows))
    message = f"version {pair.version} of {pair.name!r} answers its stored example differently here: {wrong[0]}"
    if found.shape != answer.shape or not np.allclose(found, answer, rtol=1e-4, atol=1e-5 * np.abs(answer).max()):
        raise PairIntegrityError(f"{message}; use the library versions that it was trained with, or train again")
    logger.warning("%s; served all the same, as the difference is one of rounding", message)


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
        self._previous: Bundle | None = None
        self._chosen: Bundle | None = None
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

    async def chosen(self, choice: Choice) -> Bundle:
        """Return the bundle that a request chooses, loading it aside if need be; the last one chosen stays loaded.

        Raises:
            ServingError: 404 if there is no such pair, 503 if it cannot be loaded.
        """
        try:
            return await self._workers.run(self._choose, choice)
        except ServingError:
            raise
        except Exception as error:
            message = f"{choice.ref} of {self._loader.experiment!r} cannot be loaded: {_described(error)}"
            raise ServingError(503, "pair_unavailable", message) from error

    async def run(self, function: Callable[[*Args], T], *args: *Args) -> T:
        """Run what a new bundle needs before it is used, in the loading thread."""
        return await self._workers.run(function, *args)

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
        if previous is not None and previous.pair.pair_id != bundle.pair.pair_id:
            self._previous = previous
        self.current = bundle
        return ReloadReport(bundle.pair, previous.pair.version if previous else None)

    def _load(self, current: Bundle | None) -> Bundle:
        try:
            pair = self._loader.production()
        except (ServingError, PairIntegrityError):
            raise
        except Exception as error:
            kept = None if current is not None else self._loader.kept()
            if kept is None:
                raise
            logger.warning("the registry is away, serving what is kept of version %d: %s", kept.version, error)
            return self._loader.load_kept(kept)
        for loaded in self._loaded():
            if loaded.pair.pair_id == pair.pair_id:
                return self._with_policies(loaded)
        bundle = self._loader.load(pair)
        inference = bundle.forecaster.model.inference
        logger.info("loaded version %d of %r, pair %s, %s", pair.version, pair.name, pair.pair_id, inference)
        return bundle

    def _choose(self, choice: Choice) -> Bundle:
        for loaded in self._loaded():
            # What stands behind a number never changes, so the registry need not be asked.
            if choice.version == loaded.pair.version:
                return loaded
        pair = self._loader.find(choice)
        for loaded in self._loaded():
            if loaded.pair.pair_id == pair.pair_id:
                return loaded
        self._chosen = self._loader.load_aside(pair)
        return self._chosen

    def _loaded(self) -> list[Bundle]:
        return [bundle for bundle in (self.current, self._previous, self._chosen) if bundle is not None]

    def _with_policies(self, loaded: Bundle) -> Bundle:
        """Return a bundle under the policies that the configuration has now."""
        config = self._loader.config()
        rules = RowRules.of(loaded.forecaster, config.dataset, config.requests, FallbackPolicy.of(config))
        scales, known = self._loader.scales(loaded.pair), loaded.forecaster.interval_scales
        now, before = (config.staleness, rules, config.serving), (loaded.staleness, loaded.rules, loaded.answering)
        if (now, scales) == (before, known):
            return loaded
        forecaster = loaded.forecaster if scales == known else replace(loaded.forecaster, interval_scales=scales)
        return replace(loaded, staleness=config.staleness, rules=rules, answering=config.serving, forecaster=forecaster)


def no_production_pair(experiment: str, refusal: str | None) -> ServingError:
    """Return the error of a server without a model.

    Parameters:
        refusal: what kept the newest pair out of production; `None` if nothing was ever trained.
    """
    found = f"run train_{experiment}"
    if refusal is not None:
        found = f"{refusal}; run train_{experiment} again, or promote another version"
    how = "this server then finds it within MLPLATFORM_POLL_S, or on POST /admin/reload"
    message = f"no production pair for {experiment}: {found}; {how}"
    return ServingError(503, "no_production_pair", message)


def reload_failure(error: Exception, kept: PairInfo | None) -> ServingError:
    """Return the error of a reload that failed, saying what is still served."""
    if kept is None:
        if isinstance(error, ServingError):
            return error
        return ServingError(503, "reload_failed", f"no pair could be loaded: {_described(error)}")
    return ServingError(503, "reload_failed", f"version {kept.version} is still served: {_described(error)}")


def _described(error: Exception) -> str:
    return str(error) if isinstance(error, ServingError) else without_credentials(f"{type(error).__name__}: {error}")
