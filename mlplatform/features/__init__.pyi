from .errors import (
    EntityTypeError,
    FeatureStoreError,
    ShortWindowError,
    StaleFeaturesError,
    StoreUnavailableError,
    UnknownEntityError,
)
from .retrieval import FeatureStoreFacade
from .time_point import NOW, TimePoint, parse_time_point

__all__ = [
    "NOW",
    "EntityTypeError",
    "FeatureStoreError",
    "FeatureStoreFacade",
    "ShortWindowError",
    "StaleFeaturesError",
    "StoreUnavailableError",
    "TimePoint",
    "UnknownEntityError",
    "parse_time_point",
]
