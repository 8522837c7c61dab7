"""Retrieval: what training, batch scoring and serving ask of the feature store.

`FeatureStoreFacade` is the way in: it finds a strategy by name, resolves what an experiment needs, and returns panels
that say how old they are. `load_history` and `offline_windows` are the bulk reads of training and of the parity check.
"""

from __future__ import annotations

from mlplatform.features.retrieval.facade import FeatureStoreFacade as FeatureStoreFacade
from mlplatform.features.retrieval.freshness import FeaturePanel as FeaturePanel
from mlplatform.features.retrieval.offline import load_history as load_history
from mlplatform.features.retrieval.offline import offline_windows as offline_windows
