"""What a pair reads from the feature store, past and known future: the same rows for HTTP and for the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import DatasetConfig, StalenessConfig
from mlplatform.features import NOW, TimePoint
from mlplatform.features.retrieval import FeaturePanel, FeatureStoreFacade, Known
from mlplatform.registry.forecaster import Contract
from mlplatform.settings import Settings


def read_features(
    contract: Contract,
    dataset: DatasetConfig,
    staleness: StalenessConfig,
    entities: Sequence[Any],
    time_point: TimePoint,
    settings: Settings,
) -> FeaturePanel:
    """Return the rows of entities that a pair reads, with their ages and, in `known_ahead`, what is stored ahead.

    Where the policy sets no limit, features are marked as stale, and never refused, once every step of the forecast
    lies before the present of the read.

    Parameters:
        time_point: "now" for what the online store holds; of any other moment, what the feature table knew at it.

    Raises:
        FeatureStoreError: as `FeatureStoreFacade.load_features` does.
    """
    store = FeatureStoreFacade(dataset, "online" if time_point == NOW else "as_known", settings, staleness=staleness)
    steps = contract.input_rows if contract.task == "forecast" else None
    known = Known(contract.known, contract.targets, contract.future_rows, contract.planned)
    panel = store.load_features(time_point, entities, contract.columns, steps=steps, known=known)
    if staleness.limit is None and contract.task == "forecast":
        return replace(panel, is_stale=_is_over(panel, contract))
    return panel


def _is_over(panel: FeaturePanel, contract: Contract) -> npt.NDArray[np.bool_]:
    """Return whose forecasts end before the present, of shape (entities,)."""
    newest = panel.timestamps[panel.offsets[1:] - 1]
    # What is not known to be old, or comes from after the present, has the age zero or none.
    over: npt.NDArray[np.bool_] = contract.moments_ahead(newest)[:, -1] < panel.event_times + panel.ages
    return over


def unknown_ahead(panel: FeaturePanel) -> npt.NDArray[np.bool_]:
    """Return which steps of the horizon the store does not know all columns of, of shape (entities, steps)."""
    masks = [pd.isna(values) for values in panel.known_ahead.values()]
    missing: npt.NDArray[np.bool_] = np.any(masks, axis=0)
    return missing


def with_ahead(panel: FeaturePanel, known: Mapping[str, npt.NDArray[Any]], contract: Contract) -> FeaturePanel:
    """Return the panel with `horizon` rows more per entity; what is not known beforehand is missing in them.

    Parameters:
        panel: the past, the same number of rows for every entity.
        known: column -> its values, of shape (entities, horizon) or that many in a row.
    """
    count, past = len(panel.entity_ids), int(panel.offsets[1]) if len(panel.entity_ids) else 0
    last = panel.timestamps[panel.offsets[1:] - 1]
    times = contract.moments_ahead(last)

    def joined(before: npt.NDArray[Any], after: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.hstack([before.reshape(count, past), after.reshape(count, contract.horizon)]).reshape(-1)

    columns = {}
    for name, before in panel.columns.items():
        missing: Any = None if before.dtype == object else np.nan
        columns[name] = joined(before, known.get(name, np.full(times.shape, missing, dtype=before.dtype)))
    return replace(
        panel,
        columns=columns,
        timestamps=joined(panel.timestamps, times.astype(panel.timestamps.dtype)),
        offsets=np.arange(count + 1, dtype=np.int64) * (past + contract.horizon),
    )
