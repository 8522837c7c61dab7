"""The errors that reading and validating raw data raises."""

from __future__ import annotations


class DataError(ValueError):
    """Data that cannot be used. The message names the data, what was found, what was expected and what to do."""


class SourceUnavailableError(DataError):
    """A source that does not answer now, though it may later: the same call is worth another try."""
