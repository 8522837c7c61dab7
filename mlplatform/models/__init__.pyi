from .base import (
    DEFAULT_OPTIONS,
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

__all__ = [
    "DEFAULT_OPTIONS",
    "Calibration",
    "DirectFitModel",
    "FitOptions",
    "FitResult",
    "Intervals",
    "Iterations",
    "Model",
    "ModelParams",
    "create_model",
    "load_model",
    "save_model",
]
