"""The one error that reading and validating raw data raises."""

from __future__ import annotations


class DataError(ValueError):
    """Data that cannot be used. The message names the data, what was found, what was expected and what to do."""
