from .manager import STATE_FILE, TransformManager

__all__ = ["STATE_FILE", "TransformManager"]
