from .errors import EntityTypeError, FeatureStoreError, StaleFeaturesError, StoreUnavailableError, UnknownEntityError
from .retrieval import FeatureStoreFacade
from .time_point import NOW, parse_time_point

__all__ = [
    "NOW",
    "EntityTypeError",
    "FeatureStoreError",
    "FeatureStoreFacade",
    "StaleFeaturesError",
    "StoreUnavailableError",
    "UnknownEntityError",
    "parse_time_point",
]
