from .buffer import PredictionLog
from .reading import prediction_batches, read_predictions
from .rows import COLUMNS, ServedPredictions, log_schema, log_table
from .summary import summarise_predictions
from .upkeep import maintain_predictions

__all__ = [
    "COLUMNS",
    "PredictionLog",
    "ServedPredictions",
    "log_schema",
    "log_table",
    "maintain_predictions",
    "prediction_batches",
    "read_predictions",
    "summarise_predictions",
]
