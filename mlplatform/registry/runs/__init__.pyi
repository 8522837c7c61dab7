from .candidate import read_plots, record_candidate
from .entries import mlflow_name, scores_without_a_number
from .lineage import read_training_rows, record_training_rows
from .nested_cv import nested_cv_experiment, record_nested_cv
from .record import TrainingRecord, read_record

__all__ = [
    "TrainingRecord",
    "mlflow_name",
    "nested_cv_experiment",
    "read_plots",
    "read_record",
    "read_training_rows",
    "record_candidate",
    "record_nested_cv",
    "record_training_rows",
    "scores_without_a_number",
]
