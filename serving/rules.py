"""What a pair can read and what its dataset allows, as far as rows of requests are concerned.

The rules are those of ingestion and training: a null is read where the pair fills it or its model reads it, limits are
the dataset's, and known categories are those that preprocessing was fitted on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mlplatform.config import DatasetConfig, ObservationConfig, RequestsConfig
from mlplatform.datamodule import Panel
from mlplatform.registry import Contract, Forecaster, InputRules, Mark, judge_observed
from serving.errors import too_little_observed
from serving.names import KeyNames

__all__ = ["Mark", "RowRules"]


@dataclass(frozen=True)
class RowRules(InputRules):
    """What rows may hold; by default no nulls, and anything else.

    Attributes:
        names: what clients may call entity and time.
        policy: what becomes of what is read, but unusual.
        observation: how much of a forecast's lookback must have been measured.
    """

    names: KeyNames = field(default_factory=KeyNames)
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
        own = vars(InputRules.of_pair(forecaster, dataset))
        return cls(**own, names=KeyNames.of(dataset), policy=policy, observation=observation)

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
        judged = judge_observed(panel, contract, least, self.observation.action)
        if judged.is_refused.any():
            ids = panel.entity_ids.tolist()
            found = [(ids[entity], judged.shares[entity]) for entity in np.flatnonzero(judged.is_refused)]
            raise too_little_observed(found, least, contract.lookback)
        return judged.falls_back
