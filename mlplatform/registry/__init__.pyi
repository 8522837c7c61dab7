from .batch import answer_batch, with_observation
from .digests import checked_folder
from .forecaster import Answers, Contract, Forecaster
from .interval_scale import (
    IntervalScale,
    Scale,
    calibration_digest,
    read_scale,
    scale_of_pair,
    write_scale,
)
from .marks import InputRules, Mark
from .observation import can_fall_back, judge_observed, observed_shares, with_fallback
from .stored_features import read_features, unknown_ahead, with_ahead
from .tables import input_panel, table_of_answers
from .tracking import client_for, experiment_id, open_tracking

__all__ = [
    "Answers",
    "Contract",
    "Forecaster",
    "InputRules",
    "IntervalScale",
    "Mark",
    "Scale",
    "answer_batch",
    "calibration_digest",
    "can_fall_back",
    "checked_folder",
    "client_for",
    "experiment_id",
    "input_panel",
    "judge_observed",
    "observed_shares",
    "open_tracking",
    "read_features",
    "read_scale",
    "scale_of_pair",
    "table_of_answers",
    "unknown_ahead",
    "with_ahead",
    "with_fallback",
    "with_observation",
    "write_scale",
]
