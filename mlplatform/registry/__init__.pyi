from .forecaster import Answers, Contract, Forecaster
from .tables import input_panel
from .tracking import experiment_id, open_tracking

__all__ = ["Answers", "Contract", "Forecaster", "experiment_id", "input_panel", "open_tracking"]
