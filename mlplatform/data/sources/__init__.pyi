from .base import Batch, IncrementalSource, Position, Source, open_source, source_identity, tells_news
from .files import file_sha256

__all__ = [
    "Batch",
    "IncrementalSource",
    "Position",
    "Source",
    "file_sha256",
    "open_source",
    "source_identity",
    "tells_news",
]
