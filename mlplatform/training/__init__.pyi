from .cross_validation import FoldData, fit_preprocessor, prepare_fold
from .evaluation import PartScores, score_part, seasonal_scale
from .leakage import find_leaks
from .metrics import Bounds, Metric, evaluate
from .run_checkpoints import RunCheckpoints
from .trainers import trainer_for

__all__ = [
    "Bounds",
    "FoldData",
    "Metric",
    "PartScores",
    "RunCheckpoints",
    "evaluate",
    "find_leaks",
    "fit_preprocessor",
    "prepare_fold",
    "score_part",
    "seasonal_scale",
    "trainer_for",
]
