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
from .calibration import Bounds, Calibration, Intervals, changes_of, nested
from .explanation import CannotExplainError, Contributions, Explanation, Feature, Float64, VariableWeights
from .window_scale import teaching

__all__ = [
    "DEFAULT_OPTIONS",
    "Bounds",
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
    "changes_of",
    "create_model",
    "load_model",
    "nested",
    "save_model",
    "teaching",
]
