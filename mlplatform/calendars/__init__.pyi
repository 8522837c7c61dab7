from .base import Calendar, ns_of, times_of
from .errors import CalendarError
from .features import FourierTerms, Holidays, Part, TimeFeatures, features_text, time_features, usual_parts
from .frequency import calendar_from_text, calendar_of, has_holidays, has_week_label, make_calendar
from .holiday_days import HolidayDays, days_between
from .inference import Inferred, infer_frequency
from .units import WORKING_DAYS
from .zones import LOCAL, UTC, Zone, zone_of

__all__ = [
    "LOCAL",
    "UTC",
    "WORKING_DAYS",
    "Calendar",
    "CalendarError",
    "FourierTerms",
    "HolidayDays",
    "Holidays",
    "Inferred",
    "Part",
    "TimeFeatures",
    "Zone",
    "calendar_from_text",
    "calendar_of",
    "days_between",
    "features_text",
    "has_holidays",
    "has_week_label",
    "infer_frequency",
    "make_calendar",
    "ns_of",
    "time_features",
    "times_of",
    "usual_parts",
    "zone_of",
]
