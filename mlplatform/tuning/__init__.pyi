from .objective import FittedTrial, fit_on_folds
from .plots import study_plots
from .trials import finished, interrupted, running
from .tuner import TuningResult, tune

__all__ = ["FittedTrial", "TuningResult", "finished", "fit_on_folds", "interrupted", "running", "study_plots", "tune"]
