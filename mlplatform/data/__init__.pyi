from .columns import source_columns
from .errors import DataError, SourceUnavailableError
from .feed_faults import (
    CONVERSIONS,
    LEAST_COPIED,
    MOST_TOGETHER,
    Conversion,
    Copied,
    Exchange,
    copied,
    exchanges,
    is_resting,
    is_stuck,
    runs_of,
)
from .local_times import ONE_DAY_NS, localise
from .news import source_news
from .parsing import are_twice, parse_entities, parse_local_times, parse_marks, parse_times
from .raw import ingest
from .raw_table import FIRST, LAST, SPANS_FILE, entity_spans, open_raw, read_raw, require_raw
from .removals import SINCE, gone_at, read_removals, write_removals
from .simulation import FleetOptions, simulate_fleet
from .validation import REASON, SINGLE_ENTITY, TIMELESS, Basis, Validated, off_grid_reason, validate

__all__ = [
    "CONVERSIONS",
    "FIRST",
    "LAST",
    "LEAST_COPIED",
    "MOST_TOGETHER",
    "ONE_DAY_NS",
    "REASON",
    "SINCE",
    "SINGLE_ENTITY",
    "SPANS_FILE",
    "TIMELESS",
    "Basis",
    "Conversion",
    "Copied",
    "DataError",
    "Exchange",
    "FleetOptions",
    "SourceUnavailableError",
    "Validated",
    "are_twice",
    "copied",
    "entity_spans",
    "exchanges",
    "gone_at",
    "ingest",
    "is_resting",
    "is_stuck",
    "localise",
    "off_grid_reason",
    "open_raw",
    "parse_entities",
    "parse_local_times",
    "parse_marks",
    "parse_times",
    "read_raw",
    "read_removals",
    "require_raw",
    "runs_of",
    "simulate_fleet",
    "source_columns",
    "source_news",
    "validate",
    "write_removals",
]
