from .model import TorchModel, TorchParams
from .quantiles import add_level, outputs_per_step, shape_outputs
from .windows import Batch, WindowTensors, calendar_width

__all__ = [
    "Batch",
    "TorchModel",
    "TorchParams",
    "WindowTensors",
    "add_level",
    "calendar_width",
    "outputs_per_step",
    "shape_outputs",
]
