from .errors import DataError, SourceUnavailableError
from .local_times import localise
from .news import source_news
from .parsing import parse_local_times, parse_times
from .raw import ingest
from .raw_table import FIRST, LAST, SPANS_FILE, entity_spans, open_raw, read_raw, require_raw
from .validation import REASON, SINGLE_ENTITY, TIMELESS, Basis, Validated, off_grid_reason, validate

__all__ = [
    "FIRST",
    "LAST",
    "REASON",
    "SINGLE_ENTITY",
    "SPANS_FILE",
    "TIMELESS",
    "Basis",
    "DataError",
    "SourceUnavailableError",
    "Validated",
    "entity_spans",
    "ingest",
    "localise",
    "off_grid_reason",
    "open_raw",
    "parse_local_times",
    "parse_times",
    "read_raw",
    "require_raw",
    "source_news",
    "validate",
]
