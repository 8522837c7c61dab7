from .base import (
    DEFAULT_OPTIONS,
    Differenced,
    DirectFitModel,
    FitOptions,
    FitResult,
    Iterations,
    Model,
    ModelParams,
    create_model,
    load_model,
    save_model,
)
from .calibration import Calibration, Intervals
from .explanation import CannotExplainError, Contributions, Explanation, Feature, Float64, VariableWeights

__all__ = [
    "DEFAULT_OPTIONS",
    "Calibration",
    "CannotExplainError",
    "Contributions",
    "Differenced",
    "DirectFitModel",
    "Explanation",
    "Feature",
    "FitOptions",
    "FitResult",
    "Float64",
    "Intervals",
    "Iterations",
    "Model",
    "ModelParams",
    "VariableWeights",
    "create_model",
    "load_model",
    "save_model",
]
