from .base import Batch, IncrementalSource, Position, Source
from .file_tables import FileTable, open_table
from .files import file_sha256
from .opening import open_source, source_identity

__all__ = [
    "Batch",
    "FileTable",
    "IncrementalSource",
    "Position",
    "Source",
    "file_sha256",
    "open_source",
    "open_table",
    "source_identity",
]
