from .batch import with_observation
from .forecaster import Answers, Contract, Forecaster
from .observation import can_fall_back, observed_shares, with_fallback
from .tables import input_panel, table_of_answers
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
    "table_of_answers",
    "with_fallback",
    "with_observation",
]
