from .base import Calendar, ns_of, times_of
from .errors import CalendarError
from .frequency import calendar_from_text, calendar_of, has_holidays, make_calendar
from .inference import Inferred, infer_frequency
from .units import WORKING_DAYS
from .zones import UTC, Zone, zone_of

__all__ = [
    "UTC",
    "WORKING_DAYS",
    "Calendar",
    "CalendarError",
    "Inferred",
    "Zone",
    "calendar_from_text",
    "calendar_of",
    "has_holidays",
    "infer_frequency",
    "make_calendar",
    "ns_of",
    "times_of",
    "zone_of",
]
