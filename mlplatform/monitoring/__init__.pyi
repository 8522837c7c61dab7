from .drift import build_report, read_report, write_report
from .prediction_log import PredictionLog, ServedPredictions, read_predictions
from .retrain import RetrainState, decide_retrain

__all__ = [
    "PredictionLog",
    "RetrainState",
    "ServedPredictions",
    "build_report",
    "decide_retrain",
    "read_predictions",
    "read_report",
    "write_report",
]
