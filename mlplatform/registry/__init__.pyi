from .forecaster import Answers, Contract, Forecaster
from .observation import can_fall_back, observed_shares, with_fallback
from .tables import input_panel
from .tracking import experiment_id, open_tracking

__all__ = [
    "Answers",
    "Contract",
    "Forecaster",
    "can_fall_back",
    "experiment_id",
    "input_panel",
    "observed_shares",
    "open_tracking",
    "with_fallback",
]
