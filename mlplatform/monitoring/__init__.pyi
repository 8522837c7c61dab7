from .drift import build_report
from .kept_reports import read_report, read_reports, write_report
from .prediction_log import (
    PredictionLog,
    ServedPredictions,
    maintain_predictions,
    prediction_batches,
    read_predictions,
    summarise_predictions,
)
from .report import DriftReport, ErrorDrift, FeatureDrift
from .run import KeptReport, report_on

__all__ = [
    "DriftReport",
    "ErrorDrift",
    "FeatureDrift",
    "KeptReport",
    "PredictionLog",
    "ServedPredictions",
    "build_report",
    "maintain_predictions",
    "prediction_batches",
    "read_predictions",
    "read_report",
    "read_reports",
    "report_on",
    "summarise_predictions",
    "write_report",
]
