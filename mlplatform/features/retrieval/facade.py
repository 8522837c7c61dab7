"""The facade: three lines from a configuration to the features of many entities."""

from __future__ import annotations

from collections.abc import Sequence

from mlplatform.config import DatasetConfig, ExperimentConfig, StalenessConfig, preprocessing_context
from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.online import Entities, check_columns
from mlplatform.features.retrieval.freshness import FeaturePanel
from mlplatform.features.retrieval.known_future import NOTHING, Known
from mlplatform.features.retrieval.strategies import Request, RetrievalStrategy
from mlplatform.features.time_point import NOW, TimePoint
from mlplatform.plugins import RETRIEVALS, PluginError
from mlplatform.settings import Settings


class FeatureStoreFacade:
    """The features of a dataset or an experiment, in one way of reading them.

        store = FeatureStoreFacade(config, mode="online")
        panel = store.load_features("now", [1, 2, 3])

    Parameters:
        config: an experiment, whose columns, lookback and staleness policy are then the defaults; or a dataset.
        mode: `online`, or the offline strategy `timeseries` or `tabular`; default: the offline one of the dataset.
        settings: of the installation; default: from the environment.
        staleness: replaces the policy of the experiment.

    Attributes:
        strategy: what reads; its own methods offer the same reads one by one.

    Raises:
        FeatureStoreError: if the mode is unknown or does not fit the kind of the dataset.
    """

    def __init__(
        self,
        config: ExperimentConfig | DatasetConfig,
        mode: str | None = None,
        settings: Settings | None = None,
        *,
        staleness: StalenessConfig | None = None,
    ) -> None:
        if isinstance(config, ExperimentConfig):
            self.dataset = config.dataset
            self._columns = config.features.columns
            self._steps = _needed_steps(config)
            self._known = Known(config.features.known_future, config.targets, config.horizon)
            policy = config.staleness
        else:
            self.dataset, self._columns, self._steps = config, tuple(config.columns), None
            self._known = NOTHING
            policy = StalenessConfig()
        self.strategy = create_strategy(
            self.dataset, mode or self.dataset.kind, settings or Settings.from_env(), staleness or policy
        )

    def load_features(
        self,
        time_point: TimePoint = NOW,
        entities: Entities | None = None,
        columns: Sequence[str] | None = None,
        *,
        steps: int | None = None,
        start: TimePoint | None = None,
        known: Known | None = None,
    ) -> FeaturePanel:
        """Return the features of `entities` (default: all) as they were known at `time_point`, with their ages.

        Parameters:
            columns: dataset columns; default: those of the experiment, or all.
            steps: rows per entity (time series); default: what the experiment's model needs, or without an experiment
                all there are, online the stored window.
            start: earliest time (mode `timeseries`); instead of `steps`.
            known: what is known beforehand (mode `online`, with `steps`): the past then ends with the last observed
                target, and `known_ahead` of the panel is what is stored after it; default: the experiment's.

        Raises:
            UnknownEntityError: if an entity is unknown.
            StaleFeaturesError: if features are older than the staleness policy allows.
            StoreUnavailableError: if the store does not answer, after a few tries.
            FeatureStoreError: if the request cannot be answered in this mode.
        """
        if steps is not None and start is not None:
            raise FeatureStoreError("give steps or start, not both")
        chosen = self._columns if columns is None else tuple(columns)
        check_columns(self.dataset, chosen)
        if steps is None and start is None:
            steps = self._steps
        return self.strategy.load(Request(time_point, entities, chosen, steps, start, known or self._known))


def create_strategy(
    dataset: DatasetConfig, mode: str, settings: Settings, staleness: StalenessConfig
) -> RetrievalStrategy:
    """Return the retrieval strategy called `mode`.

    Raises:
        FeatureStoreError: if there is none, or it does not read datasets of this kind.
    """
    try:
        mode_plugin = RETRIEVALS.get(mode)
    except PluginError as error:
        raise FeatureStoreError(str(error)) from error
    if dataset.kind not in mode_plugin.kinds:
        raise FeatureStoreError(
            f"mode {mode!r} does not fit dataset {dataset.name!r} of kind {dataset.kind}; it reads: "
            f"{', '.join(mode_plugin.kinds)}"
        )
    strategy: RetrievalStrategy = mode_plugin(dataset, settings, staleness)
    return strategy


def _needed_steps(config: ExperimentConfig) -> int | None:
    """Return how many rows per entity the model of an experiment reads; `None` for tabular tasks."""
    if config.task != "forecast":
        return None
    return config.reach + preprocessing_context(config.preprocessing)
