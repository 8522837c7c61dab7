from .candidate import record_candidate
from .nested_cv import nested_cv_experiment, record_nested_cv
from .record import TrainingRecord, read_record

__all__ = ["TrainingRecord", "nested_cv_experiment", "read_record", "record_candidate", "record_nested_cv"]
