from .candidate import Candidate, ModelReport, answerable, train_candidate
from .nested_cv import OuterResult, check_outer_folds, outer_folds, score_outer_fold, scores, summary
from .plots import training_plots

__all__ = [
    "Candidate",
    "ModelReport",
    "OuterResult",
    "answerable",
    "check_outer_folds",
    "outer_folds",
    "score_outer_fold",
    "scores",
    "summary",
    "train_candidate",
    "training_plots",
]
