from .objective import FittedTrial, fit_on_folds, unseen_bounds
from .plots import study_plots
from .search import Executor, Search
from .trials import finished, interrupted, running
from .tuner import TuningResult, tune

__all__ = [
    "Executor",
    "FittedTrial",
    "Search",
    "TuningResult",
    "finished",
    "fit_on_folds",
    "interrupted",
    "running",
    "study_plots",
    "tune",
    "unseen_bounds",
]
