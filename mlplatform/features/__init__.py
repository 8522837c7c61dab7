"""Features on Feast: the Parquet tables behind it, the as-of offline store, online windows, and retrieval.

`table` writes the files, `definitions` describes them to Feast, `store` opens and applies the repository, `online`
fills and reads the online store, and `retrieval` is what training and serving ask. `asof_store` and `registry_store`
are plug-ins that Feast loads by class path; they alone import Feast when they are imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlplatform.features.retrieval import FeaturePanel as FeaturePanel
    from mlplatform.features.retrieval import FeatureStoreFacade as FeatureStoreFacade

_LAZY = ("FeaturePanel", "FeatureStoreFacade")


def __getattr__(name: str) -> Any:
    # On first use, because every module below imports this package and most need neither pandas nor the facade.
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlplatform.features import retrieval

    return getattr(retrieval, name)
