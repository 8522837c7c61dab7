"""The strategy `online`: the newest windows and rows of entities, through the online store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from mlplatform.config import ENTITY
from mlplatform.datamodule import Panel
from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.online import Entities, read_rows, read_windows
from mlplatform.features.retrieval.freshness import FeaturePanel, present_of
from mlplatform.features.retrieval.known_future import Ahead, split_future
from mlplatform.features.retrieval.offline import chosen_ranges
from mlplatform.features.retrieval.strategies.base import Request, RetrievalStrategy, refuse_range
from mlplatform.features.time_point import NOW, TimePoint
from mlplatform.plugins import RETRIEVALS


@RETRIEVALS.register("online")
class OnlineRetrieval(RetrievalStrategy):
    """What the online store holds now, many entities in one read."""

    kinds = ("timeseries", "tabular")

    def load(self, request: Request) -> FeaturePanel:
        """Return the last `steps` rows, default the whole stored window; tabular: the latest row."""
        if request.start is not None:
            raise FeatureStoreError("the strategy 'online' takes no start; it reads the newest window")
        entities = request.entities
        if entities is None:
            entities = chosen_ranges(self.dataset, None, self.settings, there_at=NOW)[ENTITY].to_numpy()
        if self.dataset.kind == "tabular":
            refuse_range(request, "online")
            return self.get_online_features(entities, request.columns)
        window = self.dataset.window_steps
        if request.steps is None or not request.known.targets:
            steps = window if request.steps is None else request.steps
            return self.get_latest_n_sequence(entities, steps, request.columns, request.time_point)
        if not request.known.columns:
            return self._up_to_present(entities, request.steps, request)
        past, ahead = self._past(entities, request.steps, request)
        return replace(self.judged(past, request.time_point), known_ahead=ahead)

    def get_online_features(self, entities: Entities, columns: Sequence[str] | None = None) -> FeaturePanel:
        """Return the latest row of every entity.

        Parameters:
            columns: default: all of the dataset.

        Raises:
            UnknownEntityError: if the online store does not hold an entity.
            StoreUnavailableError: if it does not answer.
        """
        names = self._columns(columns)
        return self.judged(read_rows(self.dataset, entities, names, self.settings), NOW)

    def get_latest_n_sequence(
        self, entities: Entities, n: int, columns: Sequence[str] | None = None, time_point: TimePoint = NOW
    ) -> FeaturePanel:
        """Return the newest `n` steps of every entity of a time series.

        Parameters:
            n: at most the dataset's `window_steps`.
            columns: default: all of the dataset.
            time_point: "now", or a moment not before the stored windows end.

        Raises:
            UnknownEntityError: if the online store does not hold an entity.
            FeatureStoreError: if the stored windows are shorter or end later.
            StoreUnavailableError: if the online store does not answer.
        """
        names = self._columns(columns)
        return self.judged(read_windows(self.dataset, entities, names, n, self.settings, time_point), time_point)

    def _up_to_present(self, entities: Entities, steps: int, request: Request) -> FeaturePanel:
        """Return the newest steps without those that are after the present, or planned, and have no target observed.

        Whoever does not ask for what is known beforehand is not to take it for the past.
        """
        present = present_of(request.time_point)
        newest = read_windows(self.dataset, entities, request.columns, steps, self.settings, request.time_point)
        ends = newest.offsets[1:] - 1
        is_planned = np.zeros(len(ends), dtype=bool)
        if request.known.planned:
            is_planned = np.all([pd.isna(newest.columns[name][ends]) for name in request.known.targets], axis=0)
        if (is_planned | (newest.timestamps[ends] > present)).any():
            newest, _ = self._past(entities, steps, request, present)
        return self.judged(newest, request.time_point)

    def _past(
        self, entities: Entities, steps: int, request: Request, present: np.datetime64 | None = None
    ) -> tuple[Panel, Ahead]:
        """Return the steps up to the last observed target, and what is known of those after it; see `split_future`."""
        known = request.known
        names = tuple(dict.fromkeys((*request.columns, *known.targets)))
        window = self.dataset.window_steps
        whole = read_windows(self.dataset, entities, names, window, self.settings, request.time_point)
        past, ahead = split_future(whole, steps, known, present)
        return past.with_columns({name: past.columns[name] for name in request.columns}), ahead

    def _columns(self, columns: Sequence[str] | None) -> tuple[str, ...]:
        return tuple(self.dataset.columns) if columns is None else tuple(columns)
