from .buffer import PredictionLog
from .parts import read_predictions
from .rows import COLUMNS, ServedPredictions, log_table

__all__ = ["COLUMNS", "PredictionLog", "ServedPredictions", "log_table", "read_predictions"]
