"""What a pair can read and what its dataset allows, as far as rows of requests are concerned.

The rules are those of ingestion and training: a null is read where the pair fills it or its model reads it, limits are
the dataset's, and known categories are those that preprocessing was fitted on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mlplatform.config import DatasetConfig, RequestsConfig
from mlplatform.features.retrieval import FeaturePanel
from mlplatform.registry import Contract, FallbackPolicy, Forecaster, InputRules, Judged, Mark, Recall, judge
from serving.errors import too_little_observed, too_old, too_short
from serving.names import KeyNames

__all__ = ["Mark", "RowRules"]


@dataclass(frozen=True)
class RowRules(InputRules):
    """What rows may hold; by default no nulls, and anything else.

    Attributes:
        names: what clients may call entity and time.
        policy: what becomes of what is read, but unusual.
        fallback: when a forecast is refused, or something stands in for it.
    """

    names: KeyNames = field(default_factory=KeyNames)
    policy: RequestsConfig = field(default_factory=RequestsConfig)
    fallback: FallbackPolicy = field(default_factory=FallbackPolicy)

    @classmethod
    def of(
        cls,
        forecaster: Forecaster,
        dataset: DatasetConfig,
        policy: RequestsConfig,
        fallback: FallbackPolicy,
    ) -> RowRules:
        """Return the rules of a pair, its dataset and its experiment's policies."""
        own = vars(InputRules.of_pair(forecaster, dataset))
        return cls(**own, names=KeyNames.of(dataset), policy=policy, fallback=fallback)

    def allows_null(self, name: str) -> bool:
        """Return whether a null in a column is answered."""
        return self.policy.missing == "mark" and name in self.nullable

    def judge(self, panel: FeaturePanel, contract: Contract, recall: Recall | None) -> Judged:
        """Return for which forecasts something stands in before the model is asked.

        Parameters:
            recall: knows the last good forecasts.

        Raises:
            ServingError: 409 that names the entities whose features are too old or hardly measured, if the policy
                refuses them or there is nothing to fall back on.
        """
        judged = judge(panel, contract, self.fallback, panel.is_stale, recall)
        ids = panel.entity_ids.tolist()
        old = [place for place, why in enumerate(judged.refused) if why == "stale"]
        if old:
            raise too_old(panel, old, self.fallback.max_age or "", contract.dataset)
        short = [ids[place] for place, why in enumerate(judged.refused) if why == "short_window"]
        if short:
            raise too_short(short, contract.lookback, self.fallback.short_series)
        low = [place for place, why in enumerate(judged.refused) if why is not None]
        if low:
            found = [(ids[place], judged.shares[place]) for place in low]
            raise too_little_observed(found, self.fallback.min_observed, contract.lookback)
        return judged
