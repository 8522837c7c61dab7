"""The deployments behind the ingress in `split` mode: windows from the feature store, preprocessing, and the model.

What a client did wrong is returned as a value, not raised: Ray logs a raised exception with its traceback, and a
client's mistake is not worth one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.config import DatasetConfig, ObservationConfig, RequestsConfig, StalenessConfig
from mlplatform.datamodule import Samples
from mlplatform.features.retrieval import FeaturePanel
from mlplatform.registry import Answers
from mlplatform.registry.pairs import PairInfo
from mlplatform.settings import Settings
from serving.backend import EntityId, Served
from serving.bundle import Bundle
from serving.concurrency import Workers
from serving.errors import ServingError
from serving.inference import read_panel, store_problem
from serving.ray_batches import InTurn, SamplesOfBundle, infer_all
from serving.ray_versions import Loaders, PairRef, VersionCache
from serving.rows import panel_from_rows, with_future_of_request
from serving.rules import RowRules

# Rows and samples that are dealt with in the event loop, which costs them less than a thread would; more than these
# have a thread to themselves, so that they do not hold up others.
SMALL_ROWS, SMALL_SAMPLES = 512, 64


@dataclass(frozen=True)
class Prepared:
    """A request on its way to the model.

    Attributes:
        panel: what was read, in original units.
        falls_back: of shape (n,), which forecasts the last measured value replaces.
        samples: what the model reads.
    """

    panel: FeaturePanel
    falls_back: npt.NDArray[np.bool_]
    samples: Samples


class FeastService:
    """Reads windows from the online feature store."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaders = Loaders(settings)
        self._workers = Workers()
        self._pairs: VersionCache[tuple[PairInfo, DatasetConfig]] = VersionCache(self._load)
        self._loaders.preload(self._preload)

    async def prepare(self, ref: PairRef) -> None:
        """Load what requests for a version will need."""
        await self._pairs.get(ref)

    async def read(
        self, ref: PairRef, staleness: StalenessConfig, entities: Sequence[EntityId], time_point: str
    ) -> FeaturePanel | ServingError:
        """Return the latest rows of the entities, or what to tell the client."""
        pair, dataset = await self._pairs.get(ref)
        try:
            return await self._workers.run(
                read_panel, pair.contract, dataset, staleness, entities, time_point, self._settings
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


class PairService:
    """Base of the services that apply one half of a pair; both halves are loaded, because they are verified as one."""

    def __init__(self, settings: Settings) -> None:
        self._loaders = Loaders(settings)
        self._workers = Workers()
        self._bundles: VersionCache[Bundle] = VersionCache(self._load)
        self._loaders.preload(self._bundles.preload)

    async def prepare(self, ref: PairRef) -> None:
        """Load what requests for a version will need."""
        await self._bundles.get(ref)

    def _load(self, ref: PairRef) -> Bundle:
        loader = self._loaders.of(ref)
        return loader.load(loader.version(ref.version, ref.pair_id))


class PreprocessingService(PairService):
    """Checks raw rows, and maps panels to samples and outputs to original units."""

    async def described(
        self,
        ref: PairRef,
        staleness: StalenessConfig,
        dataset: DatasetConfig,
        policy: RequestsConfig,
        observation: ObservationConfig,
    ) -> tuple[Served, RowRules]:
        """Return what clients are told about a pair, and what rows of requests may hold."""
        bundle = await self._bundles.get(ref)
        rules = RowRules.of(bundle.forecaster, dataset, policy, observation)
        return replace(bundle, staleness=staleness).served(), rules

    async def prepare_rows(
        self, ref: PairRef, rows: Sequence[dict[str, Any]], rules: RowRules
    ) -> Prepared | ServingError:
        """Return checked raw rows of a request as the model reads them, or what to tell the client."""
        bundle = await self._bundles.get(ref)
        types = bundle.forecaster.preprocessor.columns
        read = partial(panel_from_rows, rows, bundle.pair.contract, types, rules)
        return await self._prepared(bundle, rules, read, len(rows))

    async def prepare_panel(
        self, ref: PairRef, panel: FeaturePanel, future: Sequence[dict[str, Any]], rules: RowRules
    ) -> Prepared | ServingError:
        """Return a panel, with the future that a request brings, as the model reads it, or what to tell the client."""
        bundle = await self._bundles.get(ref)
        types = bundle.forecaster.preprocessor.columns
        whole = partial(with_future_of_request, panel, future, bundle.pair.contract, types, rules)
        return await self._prepared(bundle, rules, whole, panel.rows)

    async def postprocess(self, ref: PairRef, answers: Answers) -> Answers:
        """Return the model's answers in original units."""
        bundle = await self._bundles.get(ref)
        if len(answers.point) <= SMALL_SAMPLES:
            return bundle.forecaster.postprocess_answers(answers)
        return await self._workers.run(bundle.forecaster.postprocess_answers, answers)

    async def _prepared(
        self, bundle: Bundle, rules: RowRules, read: Callable[[], FeaturePanel], rows: int
    ) -> Prepared | ServingError:
        def prepare() -> Prepared:
            panel = read()
            # Before the model is asked, because a refusal needs no forecast.
            falls_back = rules.fallbacks(panel, bundle.pair.contract)
            return Prepared(panel, falls_back, bundle.forecaster.preprocess(panel))

        try:
            return prepare() if rows <= SMALL_ROWS else await self._workers.run(prepare)
        except ServingError as error:
            return error


class ModelService(PairService):
    """Applies the model."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._batch: InTurn[SamplesOfBundle, Answers] = InTurn(infer_all)

    async def infer(self, ref: PairRef, samples: Samples) -> Answers:
        """Return the model's answers in preprocessed space; calls that arrive at the same time share a predict."""
        bundle = await self._bundles.get(ref)
        if bundle.is_batchable and len(samples) <= SMALL_SAMPLES:
            return await self._batch.ask(SamplesOfBundle(bundle, samples))
        return await self._workers.run(bundle.forecaster.infer_answers, samples)
