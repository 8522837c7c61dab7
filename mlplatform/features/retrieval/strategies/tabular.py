"""The strategy `tabular`: one row per entity as of a moment, through the offline store."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import pandas as pd

from mlplatform.features.online import Entities
from mlplatform.features.retrieval.freshness import FeaturePanel
from mlplatform.features.retrieval.offline import rows_as_of
from mlplatform.features.retrieval.strategies.base import Request, RetrievalStrategy, refuse_range
from mlplatform.features.time_point import NOW, TimePoint, parse_time_point
from mlplatform.plugins import RETRIEVALS


@RETRIEVALS.register("tabular")
class TabularRetrieval(RetrievalStrategy):
    """The row of every entity that was the newest at a moment."""

    kinds = ("tabular",)

    def load(self, request: Request) -> FeaturePanel:
        """Return the newest row of every entity at or before the time point."""
        refuse_range(request, "tabular")
        return self.get_historical_features(request.entities, request.time_point, request.columns)

    def get_historical_features(
        self, entities: Entities | None, time_point: TimePoint = NOW, columns: Sequence[str] | None = None
    ) -> FeaturePanel:
        """Return the newest row of every entity at or before `time_point`, by the point-in-time join.

        Parameters:
            entities: ids, or `None` for all.
            columns: default: all of the dataset.

        Raises:
            UnknownEntityError: if an entity is unknown or has no row yet.
        """
        names = tuple(self.dataset.columns) if columns is None else tuple(columns)
        moment = parse_time_point(time_point) or pd.Timestamp(dt.datetime.now(dt.UTC))
        return self.judged(rows_as_of(self.dataset, entities, names, self.settings, moment), time_point)
