from .facade import FeatureStoreFacade
from .freshness import FeaturePanel, judge
from .known_future import Known
from .offline import load_history, offline_windows

__all__ = ["FeaturePanel", "FeatureStoreFacade", "Known", "judge", "load_history", "offline_windows"]
