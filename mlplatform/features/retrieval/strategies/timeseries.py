"""The strategy `timeseries`: history of entities over grid times, through the offline store."""

from __future__ import annotations

from collections.abc import Sequence

from mlplatform.config import ENTITY
from mlplatform.features.online import Entities
from mlplatform.features.retrieval.freshness import FeaturePanel
from mlplatform.features.retrieval.offline import chosen_ranges, offline_windows, read_range
from mlplatform.features.retrieval.strategies.base import Request, RetrievalStrategy
from mlplatform.features.time_point import NOW, TimePoint
from mlplatform.plugins import RETRIEVALS


@RETRIEVALS.register("timeseries")
class TimeSeriesRetrieval(RetrievalStrategy):
    """Ranges of time and windows of the past."""

    kinds = ("timeseries",)

    def load(self, request: Request) -> FeaturePanel:
        """Return all rows from `start` to the time point, or the last `steps` rows up to it."""
        if request.steps is None:
            return self.get_sequence_by_range(request.entities, request.start, request.time_point, request.columns)
        entities = request.entities
        if entities is None:
            entities = chosen_ranges(self.dataset, None, self.settings, there_at=request.time_point)[ENTITY].to_numpy()
        (panel,) = offline_windows(
            self.dataset, entities, [request.time_point], request.columns, request.steps, self.settings
        )
        return self.judged(panel, request.time_point)

    def get_sequence_by_range(
        self,
        entities: Entities | None,
        start: TimePoint | None,
        end: TimePoint = NOW,
        columns: Sequence[str] | None = None,
    ) -> FeaturePanel:
        """Return every row of the entities from `start` to `end`, both included.

        Parameters:
            entities: ids, or `None` for all; those without a row in the range are left out.
            start: `None` for the first row.
            end: the present of the read: ages count from it.
            columns: default: all of the dataset.

        Raises:
            UnknownEntityError: if an entity is unknown.
            FeatureStoreError: if no entity has a row in the range.
        """
        names = tuple(self.dataset.columns) if columns is None else tuple(columns)
        return self.judged(read_range(self.dataset, entities, names, self.settings, start, end), end)
