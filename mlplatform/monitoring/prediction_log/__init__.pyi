from .buffer import PredictionLog
from .compaction import Upkeep, compact_parts
from .parts import part_batches, part_days, write_part
from .reading import prediction_batches, prediction_days, read_predictions
from .rows import COLUMNS, PRODUCTION_ARM, LogFormat, ServedPredictions, log_schema, log_table
from .summary import summarise_predictions
from .upkeep import maintain_predictions

__all__ = [
    "COLUMNS",
    "PRODUCTION_ARM",
    "LogFormat",
    "PredictionLog",
    "ServedPredictions",
    "Upkeep",
    "compact_parts",
    "log_schema",
    "log_table",
    "maintain_predictions",
    "part_batches",
    "part_days",
    "prediction_batches",
    "prediction_days",
    "read_predictions",
    "summarise_predictions",
    "write_part",
]
