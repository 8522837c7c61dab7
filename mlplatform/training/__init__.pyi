from .cross_validation import FoldData, fit_preprocessor, prepare_fold
from .demands import DemandError, check_demands
from .evaluation import PartScores, scales_for, score_part
from .leakage import find_leaks
from .metrics import CLASSES, CONTINUOUS, Metric, Truth, evaluate, metric, reading
from .per_series import Entities, Scale, SeriesScales
from .run_checkpoints import RunCheckpoints
from .too_good import TooGood, find_too_good
from .trainers import trainer_for

__all__ = [
    "CLASSES",
    "CONTINUOUS",
    "DemandError",
    "Entities",
    "FoldData",
    "Metric",
    "PartScores",
    "RunCheckpoints",
    "Scale",
    "SeriesScales",
    "TooGood",
    "Truth",
    "check_demands",
    "evaluate",
    "find_leaks",
    "find_too_good",
    "fit_preprocessor",
    "metric",
    "prepare_fold",
    "reading",
    "scales_for",
    "score_part",
    "trainer_for",
]
