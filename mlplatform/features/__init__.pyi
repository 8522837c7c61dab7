from .errors import EntityTypeError, FeatureStoreError, StaleFeaturesError, StoreUnavailableError, UnknownEntityError
from .retrieval import FeatureStoreFacade
from .time_point import NOW, TimePoint

__all__ = [
    "NOW",
    "EntityTypeError",
    "FeatureStoreError",
    "FeatureStoreFacade",
    "StaleFeaturesError",
    "StoreUnavailableError",
    "TimePoint",
    "UnknownEntityError",
]
