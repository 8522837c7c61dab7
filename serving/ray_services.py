"""The deployments behind the ingress in `split` mode: windows from the feature store, preprocessing, and the model.

What a client did wrong is returned as a value, not raised: Ray logs a raised exception with its traceback, and a
client's mistake is not worth one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from mlplatform.config import DatasetConfig, RequestsConfig, StalenessConfig
from mlplatform.datamodule import Samples
from mlplatform.features.retrieval import FeaturePanel
from mlplatform.registry import Answers, FallbackPolicy, ShortSeries
from mlplatform.registry.pairs import PairInfo
from mlplatform.settings import Settings
from serving.backend import EntityId, Explanations, Served
from serving.batching import Batcher
from serving.bundle import Bundle
from serving.concurrency import Workers, keep_loaded, let_the_loop_in
from serving.errors import ServingError
from serving.explain import explanations, require_explainable
from serving.inference import NO_POLICY, read_panel, store_problem
from serving.questions import prepare
from serving.ray_batches import SamplesOfBundle, infer_all
from serving.ray_calls import Grouped
from serving.ray_versions import Loaders, PairRef, VersionCache
from serving.rows import panel_from_rows, with_future_of_request
from serving.rules import RowRules
from serving.tracing import traced

# Calls that the model answers in one predict; one with more samples has a thread to itself.
LARGEST_BATCH = 64
# Rows that are dealt with in the event loop, where they cost less than it takes to hand them to a thread and back.
SMALL_ROWS = 512


@dataclass(frozen=True)
class Prepared:
    """A request on its way to the model.

    Attributes:
        panel: what was read, in original units.
        samples: what the model reads; `None` if it cannot be made, and something may stand in for the answers.
    """

    panel: FeaturePanel
    samples: Samples | None


class Held(NamedTuple):
    """What a replica has of a version: its pair, and threads of its own, so that one that hangs, hangs alone."""

    bundle: Bundle
    workers: Workers
    batch: Batcher[SamplesOfBundle, Answers]


class FeastService(Grouped):
    """Reads windows from the online feature store."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaders = Loaders(settings)
        self._workers = Workers()
        self._pairs: VersionCache[tuple[PairInfo, DatasetConfig]] = VersionCache(self._load)
        let_the_loop_in()
        self._loaders.preload(self._preload)
        keep_loaded()

    async def prepare(self, ref: PairRef) -> None:
        """Load what requests for a version will need."""
        await self._pairs.get(ref)

    @traced
    async def read(
        self,
        ref: PairRef,
        staleness: StalenessConfig,
        entities: Sequence[EntityId],
        time_point: str,
        short: ShortSeries = NO_POLICY,
    ) -> FeaturePanel | ServingError:
        """Return the latest rows of the entities, or what to tell the client."""
        pair, dataset = await self._pairs.get(ref)
        try:
            return await self._workers.run(
                read_panel, pair.contract, dataset, staleness, entities, time_point, self._settings, short
            )
        except ServingError as error:
            return error

    async def problem(self, ref: PairRef) -> str | None:
        """Return why the store cannot answer, or `None`."""
        pair, dataset = await self._pairs.get(ref)
        return await self._workers.run(store_problem, pair.contract, dataset, self._settings)

    def _load(self, ref: PairRef) -> tuple[PairInfo, DatasetConfig]:
        loader = self._loaders.of(ref)
        return loader.version(ref.version, ref.pair_id), loader.config().dataset

    def _preload(self, ref: PairRef) -> None:
        pair, dataset = self._pairs.preload(ref)
        # The first look imports Feast and opens its store, which would otherwise cost the first requests seconds.
        store_problem(pair.contract, dataset, self._settings)


class PairService(Grouped):
    """Base of the services that apply one half of a pair; both halves are loaded, because they are verified as one."""

    def __init__(self, settings: Settings) -> None:
        self._loaders = Loaders(settings)
        self._bundles: VersionCache[Held] = VersionCache(self._load)
        let_the_loop_in()
        self._loaders.preload(self._bundles.preload)
        keep_loaded()

    async def prepare(self, ref: PairRef) -> None:
        """Load what requests for a version will need."""
        await self._bundles.get(ref)

    def _load(self, ref: PairRef) -> Held:
        loader = self._loaders.of(ref)
        bundle = loader.load(loader.version(ref.version, ref.pair_id))
        return Held(bundle, Workers(), Batcher(infer_all, LARGEST_BATCH))


class PreprocessingService(PairService):
    """Checks raw rows, and maps panels to samples and outputs to original units."""

    async def described(
        self,
        ref: PairRef,
        staleness: StalenessConfig,
        dataset: DatasetConfig,
        policy: RequestsConfig,
        fallback: FallbackPolicy,
    ) -> tuple[Served, RowRules]:
        """Return what clients are told about a pair, and what rows of requests may hold."""
        bundle = (await self._bundles.get(ref)).bundle
        rules = RowRules.of(bundle.forecaster, dataset, policy, fallback)
        return replace(bundle, staleness=staleness).served(), rules

    @traced
    async def prepare_rows(
        self, ref: PairRef, rows: Sequence[dict[str, Any]], rules: RowRules
    ) -> Prepared | ServingError:
        """Return checked raw rows of a request as the model reads them, or what to tell the client."""
        held = await self._bundles.get(ref)
        contract, types = held.bundle.pair.contract, held.bundle.forecaster.preprocessor.columns
        return await _prepared(held, rules, partial(panel_from_rows, rows, contract, types, rules), len(rows))

    @traced
    async def prepare_panel(
        self, ref: PairRef, panel: FeaturePanel, future: Sequence[dict[str, Any]], rules: RowRules
    ) -> Prepared | ServingError:
        """Return a panel, with the future that a request brings, as the model reads it, or what to tell the client."""
        held = await self._bundles.get(ref)
        contract, types = held.bundle.pair.contract, held.bundle.forecaster.preprocessor.columns
        whole = partial(with_future_of_request, panel, future, contract, types, rules)
        return await _prepared(held, rules, whole, panel.rows)

    @traced
    async def postprocess(self, ref: PairRef, answers: Answers) -> Answers:
        """Return the model's answers in original units."""
        bundle, workers, _ = await self._bundles.get(ref)
        if len(answers.point) <= LARGEST_BATCH:
            return bundle.forecaster.postprocess_answers(answers)
        return await workers.run(bundle.forecaster.postprocess_answers, answers)


async def _prepared(
    held: Held, rules: RowRules, read: Callable[[], FeaturePanel], rows: int
) -> Prepared | ServingError:
    def prepare_read() -> Prepared:
        panel = read()
        return Prepared(panel, prepare(held.bundle.forecaster, panel, rules.fallback))

    try:
        return prepare_read() if rows <= SMALL_ROWS else await held.workers.run(prepare_read)
    except ServingError as error:
        return error


class ModelService(PairService):
    """Applies the model."""

    @traced
    async def infer(self, ref: PairRef, samples: Samples) -> Answers:
        """Return the model's answers in preprocessed space; calls that wait at the same time share a predict."""
        bundle, workers, batch = await self._bundles.get(ref)
        if bundle.is_batchable and len(samples) <= LARGEST_BATCH:
            return await batch.ask(SamplesOfBundle(bundle, samples))
        return await workers.run(bundle.forecaster.infer_answers, samples)

    @traced
    async def explain(self, ref: PairRef, panel: FeaturePanel) -> Explanations | ServingError:
        """Return an explanation for every entity, or what to tell the client."""
        bundle, workers, _ = await self._bundles.get(ref)
        try:
            require_explainable(bundle)
            return await workers.run(explanations, bundle, panel)
        except ServingError as error:
            return error
