from .batch import answer_batch, with_observation
from .digests import checked_folder
from .explanation import explain
from .fallback import Completed, FallbackPolicy, Judged, Reasons, Recall, StandIns, Why, complete, judge
from .forecaster import Answers, Contract, Forecaster, Scale, Scales
from .interval_scale import (
    IntervalScale,
    calibration_digest,
    read_scale,
    scales_of_pair,
    write_scale,
)
from .marks import InputRules, Mark, unreadable_columns, why_broken
from .observation import rows_or_missing
from .short_series import ShortSeries
from .stored_features import read_features, unknown_ahead, with_ahead
from .tables import input_panel, interval_lists, interval_type, table_of_answers
from .tracking import RegistryAwayError, client_for, experiment_id, mlflow_error, open_tracking, require_answer

__all__ = [
    "Answers",
    "Completed",
    "Contract",
    "FallbackPolicy",
    "Forecaster",
    "InputRules",
    "IntervalScale",
    "Judged",
    "Mark",
    "Reasons",
    "Recall",
    "RegistryAwayError",
    "Scale",
    "Scales",
    "ShortSeries",
    "StandIns",
    "Why",
    "answer_batch",
    "calibration_digest",
    "checked_folder",
    "client_for",
    "complete",
    "experiment_id",
    "explain",
    "input_panel",
    "interval_lists",
    "interval_type",
    "judge",
    "mlflow_error",
    "open_tracking",
    "read_features",
    "read_scale",
    "require_answer",
    "rows_or_missing",
    "scales_of_pair",
    "table_of_answers",
    "unknown_ahead",
    "unreadable_columns",
    "why_broken",
    "with_ahead",
    "with_observation",
    "write_scale",
]
