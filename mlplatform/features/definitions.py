"""What `feature_repo/definitions.py` files of earlier versions import; it stays."""

from mlplatform.features.feast import build_definitions

__all__ = ["build_definitions"]
