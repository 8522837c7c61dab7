"""What a pair can read and what its dataset allows, as far as rows of requests are concerned.

The rules are those of ingestion and training: a null is read where the pair fills it or its model reads it, limits are
the dataset's, and known categories are those that preprocessing was fitted on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import DatasetConfig, ObservationConfig, RequestsConfig
from mlplatform.datamodule import Panel
from mlplatform.registry import Contract, Forecaster, can_fall_back, observed_shares
from serving.errors import too_little_observed
from serving.names import KeyNames

Kind = Literal["missing", "out_of_range", "unseen_category"]
Limits = tuple[float, float]


@dataclass(frozen=True)
class Mark:
    """Something unusual in the rows behind an answer.

    Attributes:
        rows: of the entity's rows that the answer was made from, those concerned.
    """

    kind: Kind
    column: str
    rows: int


@dataclass(frozen=True)
class RowRules:
    """What rows may hold; by default no nulls, and anything else.

    Attributes:
        names: what clients may call entity and time.
        nullable: columns in which a null is read.
        limits: least and greatest value of the columns that have one; infinite where there is none.
        categories: known categories of the categorical columns.
        policy: what becomes of what is read, but unusual.
        observation: how much of a forecast's lookback must have been measured.
    """

    names: KeyNames = field(default_factory=KeyNames)
    nullable: frozenset[str] = frozenset()
    limits: Mapping[str, Limits] = field(default_factory=dict)
    categories: Mapping[str, frozenset[str]] = field(default_factory=dict)
    policy: RequestsConfig = field(default_factory=RequestsConfig)
    observation: ObservationConfig = field(default_factory=ObservationConfig)

    @classmethod
    def of(
        cls,
        forecaster: Forecaster,
        dataset: DatasetConfig,
        policy: RequestsConfig,
        observation: ObservationConfig,
    ) -> RowRules:
        """Return the rules of a pair, its dataset and its experiment's policies."""
        columns = {name: dataset.columns[name] for name in forecaster.contract.columns if name in dataset.columns}
        categories = {}
        filled = set(columns) if forecaster.model.reads_missing else set()
        for name, _, transform in forecaster.preprocessor.fitted_:
            if hasattr(transform, "classes_"):
                # A code of its own stands for what is missing or unknown.
                categories[name] = frozenset(transform.classes_)
                filled.add(name)
            if transform.fills_missing:
                filled.add(name)
        limits = {
            name: (-np.inf if column.min is None else column.min, np.inf if column.max is None else column.max)
            for name, column in columns.items()
            if column.min is not None or column.max is not None
        }
        return cls(
            names=KeyNames.of(dataset),
            nullable=frozenset(name for name in filled & set(columns) if columns[name].nullable),
            limits=limits,
            categories={name: categories[name] for name in columns if name in categories},
            policy=policy,
            observation=observation,
        )

    def allows_null(self, name: str) -> bool:
        """Return whether a null in a column is answered."""
        return self.policy.missing == "mark" and name in self.nullable

    def fallbacks(self, panel: Panel, contract: Contract) -> npt.NDArray[np.bool_]:
        """Return for which forecasts the last measured value stands in, of shape (entities,).

        Raises:
            ServingError: 409 that names the entities of which too little was measured, if the policy refuses them or
                there is nothing to fall back on.
        """
        least = self.observation.min_observed
        if contract.task != "forecast" or not least:
            return np.zeros(len(panel.entity_ids), dtype=bool)
        shares = observed_shares(panel, contract)
        is_low: npt.NDArray[np.bool_] = shares < least
        is_refused = is_low.copy()
        if self.observation.action == "fallback":
            is_refused &= ~can_fall_back(panel, contract)
        if is_refused.any():
            ids = panel.entity_ids.tolist()
            found = [(ids[entity], shares[entity]) for entity in np.flatnonzero(is_refused)]
            raise too_little_observed(found, least, contract.lookback)
        return is_low

    def marks(self, panel: Panel, contract: Contract) -> tuple[tuple[Mark, ...], ...]:
        """Return what is unusual in the rows behind every answer, of shape (entities,)."""
        found: list[list[Mark]] = [[] for _ in panel.entity_ids]
        past = _is_past(panel, contract)
        for name in contract.columns:
            values = panel.columns[name]
            counted = np.ones(panel.rows, bool) if name in contract.known else past
            for kind, is_unusual in self._unusual(name, values):
                counts = np.add.reduceat((is_unusual & counted).astype(np.int64), panel.offsets[:-1])
                for entity in np.flatnonzero(counts):
                    found[entity].append(Mark(kind, name, int(counts[entity])))
        return tuple(map(tuple, found))

    def _unusual(self, name: str, values: npt.NDArray[np.generic]) -> Iterator[tuple[Kind, npt.NDArray[np.bool_]]]:
        """Yield what is unusual in a column, with a mask of the rows concerned where there are any."""
        is_missing = pd.isna(values)
        if is_missing.any():
            yield "missing", is_missing
        if name in self.limits:
            low, high = self.limits[name]
            numbers = values.astype(np.float32)
            is_beyond = (numbers < np.float32(low)) | (numbers > np.float32(high))
            if is_beyond.any():
                yield "out_of_range", is_beyond
        if name in self.categories:
            unseen = set(values[~is_missing].tolist()) - self.categories[name]
            if unseen:
                yield "unseen_category", np.array([value in unseen for value in values.tolist()], dtype=bool)


def _is_past(panel: Panel, contract: Contract) -> npt.NDArray[np.bool_]:
    """Return which rows are of the past; the others hold the known columns alone."""
    ahead = panel.offsets[1:].repeat(np.diff(panel.offsets)) - np.arange(panel.rows)
    is_past: npt.NDArray[np.bool_] = ahead > contract.future_rows
    return is_past
