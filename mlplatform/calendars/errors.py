"""The error for who wrote a frequency, a zone or a holiday that cannot be used."""

from __future__ import annotations


class CalendarError(ValueError):
    """A frequency, zone, holiday or set of times that no calendar can be made of."""
