"""The last good forecast of every entity, for experiments that fall back on it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from mlplatform.config import AnsweringConfig
from mlplatform.datamodule import Float32, Panel
from mlplatform.features import NOW
from mlplatform.registry import Contract, Recall, StandIns
from serving.backend import Choice, Prediction

# Of one experiment and process; the entities asked about longest ago go first.
_MOST_ENTITIES = 20_000


class _Forecast(NamedTuple):
    values: Float32
    origin: np.datetime64


class LastForecasts:
    """Remembers forecasts by entity. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Forecast] = OrderedDict()

    def recall_for(self, choice: Choice, time_point: str) -> Recall | None:
        """Return what recalls the last forecasts for a request; `None` where they cannot stand in for its answer."""
        return self.recall if _is_about_now(choice, time_point) else None

    def remember(self, prediction: Prediction, choice: Choice, time_point: str, answering: AnsweringConfig) -> None:
        """Keep what a model itself answered from the feature store, if it may stand in for a later answer."""
        if answering.fallback != "last_forecast" or not _is_about_now(choice, time_point):
            return
        rows = zip(
            prediction.entity_ids.tolist(),
            prediction.outputs,
            prediction.origins,
            prediction.fallback_reasons,
            strict=True,
        )
        with self._lock:
            for entity, values, origin, reason in rows:
                if reason is None:
                    self._known[str(entity)] = _Forecast(values, origin)
                    self._known.move_to_end(str(entity))
            while len(self._known) > _MOST_ENTITIES:
                self._known.popitem(last=False)

    def recall(self, panel: Panel, contract: Contract) -> StandIns:
        """Return the last forecasts of a panel's entities; none where it has ended before the panel's newest row."""
        shape = (contract.horizon, len(contract.targets))
        values = np.full((len(panel.entity_ids), *shape), np.nan, dtype=np.float32)
        origins = panel.timestamps[panel.offsets[1:] - 1 - contract.future_rows].copy()
        with self._lock:
            for place, entity in enumerate(panel.entity_ids.tolist()):
                found = self._known.get(str(entity))
                if found is None or found.values.shape != shape:
                    continue
                last = contract.moments_ahead(np.array([found.origin]))[0, -1]
                if origins[place] < last:
                    values[place], origins[place] = found
        return StandIns(values, origins)


def _is_about_now(choice: Choice, time_point: str) -> bool:
    """Return whether the pair in production is asked about the present; others' forecasts are not for everybody."""
    return choice.is_default and time_point == NOW
