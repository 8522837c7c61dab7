from .pieces import errors_folder
from .reading import (
    SCORE_POINTS,
    block_errors,
    followed_forecasts,
    interval_scores,
    newest_moment,
    recent_error,
    summarise_errors,
)
from .update import ErrorsUpdate, update_errors

__all__ = [
    "SCORE_POINTS",
    "ErrorsUpdate",
    "block_errors",
    "errors_folder",
    "followed_forecasts",
    "interval_scores",
    "newest_moment",
    "recent_error",
    "summarise_errors",
    "update_errors",
]
