"""The class path of the registry store in `feature_store.yaml` files of earlier versions; it stays."""

from mlplatform.features.feast.registry_store import AtomicFileRegistryStore

__all__ = ["AtomicFileRegistryStore"]
