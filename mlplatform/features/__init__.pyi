from .errors import EntityTypeError, FeatureStoreError, StaleFeaturesError, StoreUnavailableError, UnknownEntityError
from .retrieval import FeaturePanel, FeatureStoreFacade
from .time_point import NOW

__all__ = [
    "NOW",
    "EntityTypeError",
    "FeaturePanel",
    "FeatureStoreError",
    "FeatureStoreFacade",
    "StaleFeaturesError",
    "StoreUnavailableError",
    "UnknownEntityError",
]
