from .facade import FeatureStoreFacade
from .freshness import FeaturePanel, judge
from .offline import load_history, offline_windows

__all__ = ["FeaturePanel", "FeatureStoreFacade", "judge", "load_history", "offline_windows"]
