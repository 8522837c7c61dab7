from .base import Transform, TransformParams
from .manager import STATE_FILE, TransformManager

__all__ = ["STATE_FILE", "Transform", "TransformManager", "TransformParams"]
