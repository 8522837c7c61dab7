"""What-if: known-future values of a caller in the place of those that the feature store knows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.calendars import zone_of
from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.data import SINGLE_ENTITY, DataError, parse_local_times
from mlplatform.features.retrieval import FeaturePanel
from mlplatform.registry import Contract


def read_scenario(rows: pd.DataFrame, dataset: DatasetConfig, contract: Contract) -> pd.DataFrame:
    """Return rows of a caller in canonical form: entity, time in UTC, and the known-future columns among theirs.

    Entity and time may go by the dataset's own names. Rows without an entity are of the only one there is.

    Raises:
        DataError: if the pair reads nothing ahead, or a column or a time cannot be used.
    """
    if not contract.known:
        raise DataError(
            f"{contract.experiment} reads no column ahead of time, so rows of the future change nothing; leave them out"
        )
    own = {dataset.entity_column: ENTITY, dataset.time_column: TIMESTAMP}
    rows = rows.rename(columns={name: known for name, known in own.items() if name is not None})
    given = [name for name in contract.known if name in rows]
    if TIMESTAMP not in rows or not given:
        raise DataError(
            f"rows of the future need a time ({dataset.time_column!r} or {TIMESTAMP!r}) and at least one of "
            f"{', '.join(contract.known)}; found: {', '.join(map(str, rows.columns))}"
        )
    if ENTITY not in rows:
        if dataset.entity_column is not None:
            raise DataError(f"rows of the future need the column {dataset.entity_column!r}, since there are entities")
        rows = rows.assign(**{ENTITY: SINGLE_ENTITY})
    times, faulty, *_ = parse_local_times(rows[TIMESTAMP], rows[ENTITY], zone_of(dataset.timezone))
    if faulty.any() or np.isnat(times).any():
        place = int(np.flatnonzero(faulty | np.isnat(times))[0])
        raise DataError(f"row {place} of the future has the time {rows[TIMESTAMP].iloc[place]!r}, which is none")
    canonical = rows[[ENTITY, *given]].assign(**{TIMESTAMP: times})
    if canonical.duplicated([ENTITY, TIMESTAMP]).any():
        first = canonical[canonical.duplicated([ENTITY, TIMESTAMP])].iloc[0]
        raise DataError(f"there are two rows of the future of {first[ENTITY]!r} at {first[TIMESTAMP]}Z; keep one")
    return canonical


def apply_scenario(panel: FeaturePanel, scenario: pd.DataFrame, contract: Contract) -> FeaturePanel:
    """Return the panel whose `known_ahead` holds the scenario's values wherever it has a row of that entity and step.

    Parameters:
        panel: one window per entity, as the feature store returns it.
        scenario: as `read_scenario` returns it.
    """
    # As text, because what a caller has read from a file need not have the type that the store keeps.
    entities = pd.Index(panel.entity_ids).astype(str).repeat(contract.horizon)
    ahead = contract.moments_ahead(panel.timestamps[panel.offsets[1:] - 1])
    wanted = pd.MultiIndex.from_arrays([entities, ahead.ravel()], names=[ENTITY, TIMESTAMP])
    given = scenario.assign(**{ENTITY: scenario[ENTITY].astype(str)}).set_index([ENTITY, TIMESTAMP])
    places = given.index.get_indexer(wanted).reshape(ahead.shape)
    known = dict(panel.known_ahead)
    for name in given.columns:
        known[name] = _replaced(known[name], given[name].to_numpy(), places)
    return replace(panel, known_ahead=known)


def _replaced(stored: npt.NDArray[Any], values: npt.NDArray[Any], places: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """Return stored values with those at given places of others; -1 is no place."""
    chosen = stored.reshape(places.shape).copy()
    is_given = places >= 0
    chosen[is_given] = values[places[is_given]].astype(chosen.dtype)
    return chosen.reshape(stored.shape)
