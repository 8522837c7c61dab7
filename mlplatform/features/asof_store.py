"""The class path of the as-of offline store in `feature_store.yaml` files of earlier versions; it stays."""

from mlplatform.features.asof.store import AsOfOfflineStore, AsOfOfflineStoreConfig

__all__ = ["AsOfOfflineStore", "AsOfOfflineStoreConfig"]
