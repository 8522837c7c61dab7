"""The strategy `as_known`: what the offline store knew at a moment, many entities in one read."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pandas as pd

from mlplatform.config import ENTITY
from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.retrieval.as_known import rows_as_known, windows_as_known
from mlplatform.features.retrieval.freshness import FeaturePanel
from mlplatform.features.retrieval.offline import chosen_ranges
from mlplatform.features.retrieval.strategies.base import Request, RetrievalStrategy, refuse_range
from mlplatform.features.time_point import parse_time_point
from mlplatform.plugins import RETRIEVALS


@RETRIEVALS.register("as_known")
class AsKnownRetrieval(RetrievalStrategy):
    """Windows and rows at a moment, without later rows and without corrections that came later."""

    kinds = ("timeseries", "tabular")

    def load(self, request: Request) -> FeaturePanel:
        """Return the last `steps` rows up to the time point, default a whole window; tabular: the newest row."""
        if request.start is not None:
            raise FeatureStoreError("the strategy 'as_known' takes no start; it reads the window at the time point")
        moment = parse_time_point(request.time_point) or pd.Timestamp(dt.datetime.now(dt.UTC))
        entities = request.entities
        if entities is None:
            ranges = chosen_ranges(self.dataset, None, self.settings, known_at=moment, there_at=moment)
            entities = ranges[ENTITY].to_numpy()
        if self.dataset.kind == "tabular":
            refuse_range(request, "as_known")
            panel = rows_as_known(self.dataset, entities, moment, request.columns, self.settings)
            return self.judged(panel, request.time_point)
        steps = self.dataset.window_steps if request.steps is None else request.steps
        panel, ahead = windows_as_known(
            self.dataset, entities, moment, request.columns, steps, self.settings, request.known
        )
        return replace(self.judged(panel, request.time_point), known_ahead=ahead)
