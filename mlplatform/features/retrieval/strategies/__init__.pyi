from .base import Request, RetrievalStrategy

__all__ = ["Request", "RetrievalStrategy"]
