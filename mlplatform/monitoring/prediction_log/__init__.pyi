from .buffer import PredictionLog
from .compaction import Upkeep, compact_parts
from .parts import batches_of, newer_parts, part_batches, part_days, readers_lock, write_part
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
    "batches_of",
    "compact_parts",
    "log_schema",
    "log_table",
    "maintain_predictions",
    "newer_parts",
    "part_batches",
    "part_days",
    "prediction_batches",
    "prediction_days",
    "read_predictions",
    "readers_lock",
    "summarise_predictions",
    "write_part",
]
