from .drift import build_report
from .feedback import Label, keep_labels, maintain_feedback
from .forecast_errors import errors_folder, followed_forecasts, newest_moment, summarise_errors, update_errors
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
from .run import KeptReport, adapt_intervals, report_on

__all__ = [
    "DriftReport",
    "ErrorDrift",
    "FeatureDrift",
    "KeptReport",
    "Label",
    "PredictionLog",
    "ServedPredictions",
    "adapt_intervals",
    "build_report",
    "errors_folder",
    "followed_forecasts",
    "keep_labels",
    "maintain_feedback",
    "maintain_predictions",
    "newest_moment",
    "prediction_batches",
    "read_predictions",
    "read_report",
    "read_reports",
    "report_on",
    "summarise_errors",
    "summarise_predictions",
    "update_errors",
    "write_report",
]
