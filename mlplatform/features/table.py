"""What `feature_repo/definitions.py` files of earlier versions import; it stays."""

from mlplatform.features.tables import features_path

__all__ = ["features_path"]
