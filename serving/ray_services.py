"""The deployments behind the ingress: windows from the feature store, samples, the model's output, original units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

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
from serving.ray_versions import Loaders, PairRef, VersionCache
from serving.rows import panel_from_rows, with_future_of_request
from serving.rules import RowRules


class FeastService:
    """Reads windows from the online feature store."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaders = Loaders(settings)
        self._workers = Workers()
        self._pairs: VersionCache[tuple[PairInfo, DatasetConfig]] = VersionCache(self._load)

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
            # As a value: Ray logs a raised exception with its traceback, and a client's mistake is not worth one.
            return error

    async def problem(self, ref: PairRef) -> str | None:
        """Return why the store cannot answer, or `None`."""
        pair, dataset = await self._pairs.get(ref)
        return await self._workers.run(store_problem, pair.contract, dataset, self._settings)

    def _load(self, ref: PairRef) -> tuple[PairInfo, DatasetConfig]:
        loader = self._loaders.of(ref)
        return loader.version(ref.version, ref.pair_id), loader.config().dataset


class PairService:
    """Base of the services that apply one half of a pair; both halves are loaded, because they are verified as one."""

    def __init__(self, settings: Settings) -> None:
        self._loaders = Loaders(settings)
        self._workers = Workers()
        self._bundles: VersionCache[Bundle] = VersionCache(self._load)

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

    async def panel(self, ref: PairRef, rows: Sequence[dict[str, Any]], rules: RowRules) -> FeaturePanel | ServingError:
        """Return checked raw rows as a panel, or what to tell the client."""
        bundle = await self._bundles.get(ref)
        try:
            return await self._workers.run(
                panel_from_rows, rows, bundle.pair.contract, bundle.forecaster.preprocessor.columns, rules
            )
        except ServingError as error:
            return error

    async def future(
        self, ref: PairRef, panel: FeaturePanel, rows: Sequence[dict[str, Any]], rules: RowRules
    ) -> FeaturePanel | ServingError:
        """Return the panel with the future that the request brings, or what to tell the client."""
        bundle = await self._bundles.get(ref)
        types = bundle.forecaster.preprocessor.columns
        try:
            return await self._workers.run(with_future_of_request, panel, rows, bundle.pair.contract, types, rules)
        except ServingError as error:
            return error

    async def preprocess(self, ref: PairRef, panel: FeaturePanel) -> Samples:
        """Return the samples of a panel."""
        bundle = await self._bundles.get(ref)
        return await self._workers.run(bundle.forecaster.preprocess, panel)

    async def postprocess(self, ref: PairRef, answers: Answers) -> Answers:
        """Return the model's answers in original units."""
        bundle = await self._bundles.get(ref)
        return await self._workers.run(bundle.forecaster.postprocess_answers, answers)


class ModelService(PairService):
    """Applies the model."""

    async def infer(self, ref: PairRef, samples: Samples) -> Answers:
        """Return the model's answers in preprocessed space."""
        bundle = await self._bundles.get(ref)
        return await self._workers.run(bundle.forecaster.infer_answers, samples)
