from .base import Batch, IncrementalSource, Position, Source, tells_news
from .file_tables import FileTable, open_table
from .files import file_sha256
from .filesets import split_glob
from .opening import open_source, source_identity
from .written_cells import NUMBER_NULLS, number_pattern, written_numbers

__all__ = [
    "NUMBER_NULLS",
    "Batch",
    "FileTable",
    "IncrementalSource",
    "Position",
    "Source",
    "file_sha256",
    "number_pattern",
    "open_source",
    "open_table",
    "source_identity",
    "split_glob",
    "tells_news",
    "written_numbers",
]
