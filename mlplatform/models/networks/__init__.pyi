from .model import TorchModel, TorchParams
from .quantiles import add_level, outputs_per_step, shape_outputs
from .windows import Batch, WindowTensors

__all__ = ["Batch", "TorchModel", "TorchParams", "WindowTensors", "add_level", "outputs_per_step", "shape_outputs"]
