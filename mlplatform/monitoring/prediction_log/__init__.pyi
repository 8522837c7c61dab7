from .buffer import PredictionLog
from .reading import prediction_batches, read_predictions
from .rows import COLUMNS, ServedPredictions, log_schema, log_table

__all__ = [
    "COLUMNS",
    "PredictionLog",
    "ServedPredictions",
    "log_schema",
    "log_table",
    "prediction_batches",
    "read_predictions",
]
