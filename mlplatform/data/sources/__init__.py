"""Data sources: one plug-in per module, chosen by the scheme or file suffix of `source.uri`."""

from mlplatform.data.sources.base import (
    Batch,
    IncrementalSource,
    Position,
    Source,
    open_source,
    read_source,
    source_identity,
)

__all__ = ["Batch", "IncrementalSource", "Position", "Source", "open_source", "read_source", "source_identity"]
