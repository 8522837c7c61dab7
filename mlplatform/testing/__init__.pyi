from .experiments import pump_settings
from .registry_processes import flips, side_by_side
from .search_process import slow_search, start_search, wait_for
from .tiny_pair import NAME, TinyRegistry, tiny_forecaster

__all__ = [
    "NAME",
    "TinyRegistry",
    "flips",
    "pump_settings",
    "side_by_side",
    "slow_search",
    "start_search",
    "tiny_forecaster",
    "wait_for",
]
