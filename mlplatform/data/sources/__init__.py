"""Data sources: one plug-in per module, chosen by the scheme or file suffix of `source.uri`."""

from mlplatform.data.sources.base import Source, read_source

__all__ = ["Source", "read_source"]
