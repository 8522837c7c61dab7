from .candidate import Candidate, ModelReport, answerable, train_candidate
from .nested_cv import OuterResult, outer_folds, score_outer_fold, scores, summary
from .plots import training_plots

__all__ = [
    "Candidate",
    "ModelReport",
    "OuterResult",
    "answerable",
    "outer_folds",
    "score_outer_fold",
    "scores",
    "summary",
    "train_candidate",
    "training_plots",
]
