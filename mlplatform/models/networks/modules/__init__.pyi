from .categories import MixedColumns
from .tft import TFTModule

__all__ = ["MixedColumns", "TFTModule"]
