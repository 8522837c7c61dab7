"""The contract of a retrieval strategy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from mlplatform.config import DatasetConfig, StalenessConfig
from mlplatform.datamodule import Panel
from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.online import Entities
from mlplatform.features.retrieval.freshness import FeaturePanel, judge
from mlplatform.features.retrieval.known_future import NOTHING, Known
from mlplatform.features.time_point import TimePoint
from mlplatform.settings import Settings


@dataclass(frozen=True)
class Request:
    """What is asked of a strategy.

    Attributes:
        time_point: the present of the answer; nothing later is read. "now" is the newest data.
        entities: ids, or `None` for all.
        columns: dataset columns.
        steps: rows per entity, counted back from the time point; `None` for all there are.
        start: earliest time; excludes `steps`.
        known: what is known beforehand; online, if it is anything, the past ends with the last observed target.
    """

    time_point: TimePoint
    entities: Entities | None
    columns: tuple[str, ...]
    steps: int | None = None
    start: TimePoint | None = None
    known: Known = NOTHING


class RetrievalStrategy(ABC):
    """A way to read features.

    Class attributes:
        kinds: kinds of datasets that it reads.

    Parameters:
        dataset: what is read.
        settings: of the installation.
        staleness: how old features may be; applies to every read.
    """

    kinds: ClassVar[tuple[str, ...]]

    def __init__(self, dataset: DatasetConfig, settings: Settings, staleness: StalenessConfig) -> None:
        self.dataset = dataset
        self.settings = settings
        self.staleness = staleness

    @abstractmethod
    def load(self, request: Request) -> FeaturePanel:
        """Return the requested features.

        Raises:
            FeatureStoreError: if the request does not fit the strategy or cannot be answered.
        """

    def judged(self, panel: Panel, time_point: TimePoint) -> FeaturePanel:
        """Return what was read, with its ages as of `time_point` under the staleness policy."""
        has_times = self.dataset.time_column is not None
        return judge(panel, time_point, self.dataset.name, self.staleness, has_times=has_times)


def refuse_range(request: Request, mode: str) -> None:
    """Raise `FeatureStoreError` if a request for single rows names steps or a start."""
    if request.steps is not None or request.start is not None:
        raise FeatureStoreError(f"tabular data has one row per entity; the strategy {mode!r} takes no steps or start")
