from .errors import DataError, SourceUnavailableError
from .raw import ingest
from .raw_table import FIRST, LAST, SPANS_FILE, entity_spans, open_raw, read_raw, require_raw

__all__ = [
    "FIRST",
    "LAST",
    "SPANS_FILE",
    "DataError",
    "SourceUnavailableError",
    "entity_spans",
    "ingest",
    "open_raw",
    "read_raw",
    "require_raw",
]
