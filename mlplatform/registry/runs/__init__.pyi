from .candidate import record_candidate
from .entries import mlflow_name, scores_without_a_number
from .nested_cv import nested_cv_experiment, record_nested_cv
from .record import TrainingRecord, read_record

__all__ = [
    "TrainingRecord",
    "mlflow_name",
    "nested_cv_experiment",
    "read_record",
    "record_candidate",
    "record_nested_cv",
    "scores_without_a_number",
]
