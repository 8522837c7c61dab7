from .drift import build_report, read_report, recent_predictions, update_error_test, write_report
from .live_error import read_error_test, write_error_test
from .prediction_log import (
    PredictionLog,
    ServedPredictions,
    maintain_predictions,
    prediction_batches,
    read_predictions,
    summarise_predictions,
)

__all__ = [
    "PredictionLog",
    "ServedPredictions",
    "build_report",
    "maintain_predictions",
    "prediction_batches",
    "read_error_test",
    "read_predictions",
    "read_report",
    "recent_predictions",
    "summarise_predictions",
    "update_error_test",
    "write_error_test",
    "write_report",
]
