from .experiments import pump_settings
from .frames import read_source, write_feature_table
from .registry_processes import flips, side_by_side
from .row_audit import audit_rows
from .search_process import slow_search, start_search, wait_for
from .tiny_pair import NAME, TinyRegistry, tiny_forecaster

__all__ = [
    "NAME",
    "TinyRegistry",
    "audit_rows",
    "flips",
    "pump_settings",
    "read_source",
    "side_by_side",
    "slow_search",
    "start_search",
    "tiny_forecaster",
    "wait_for",
    "write_feature_table",
]
