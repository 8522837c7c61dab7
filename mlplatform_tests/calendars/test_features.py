"""What the calendar says about moments: beside pandas and loops over days, and the same bits alone as among others."""

from __future__ import annotations

import datetime as dt
import zoneinfo

import numpy as np
import pandas as pd
import pytest
from holidays import country_holidays
from hypothesis import given, settings

from mlplatform.calendars import (
    Calendar,
    CalendarError,
    FourierTerms,
    HolidayDays,
    Holidays,
    TimeFeatures,
    calendar_of,
    features_text,
    make_calendar,
    time_features,
    usual_parts,
)
from mlplatform.calendars.features import PARTS
from mlplatform_tests.calendars.test_calendars import calendars, moments

BERLIN = Holidays("DE", "BE", before=1, after=2)
EVERYTHING = features_text(PARTS, [FourierTerms(12, 3), FourierTerms(365.2425, 2)], [BERLIN, Holidays("US")])


def column(features: TimeFeatures, name: str, *times: str) -> list[float]:
    """Return a feature at times in UTC."""
    values = features.numbers(np.array([pd.Timestamp(time).value for time in times]))
    return [float(value) for value in values[:, features.number_names().index(name)]]


@given(calendars(), moments())
@settings(max_examples=60, deadline=None)
def test_parts_are_those_of_the_clocks_and_calendars_on_the_wall(calendar: Calendar, some: np.ndarray) -> None:
    features = TimeFeatures(calendar, PARTS)
    numbers = dict(zip(features.number_names(), features.numbers(some).T, strict=True))
    # Not by pandas, whose zones end in 2037.
    zone = zoneinfo.ZoneInfo(calendar.zone.name)
    moments_ = [dt.datetime.fromtimestamp(moment // 10**9, dt.UTC) for moment in some.tolist()]
    local = [pd.Timestamp(moment.astimezone(zone).replace(tzinfo=None)) for moment in moments_]
    hours = [(each - each.normalize()) / pd.Timedelta(hours=1) for each in local]
    np.testing.assert_allclose(numbers["hour"], hours, rtol=1e-6, atol=1e-3)
    for name in ("weekday", "day", "day_of_year", "week", "month", "quarter"):
        of_pandas = [each.weekday() if name == "weekday" else getattr(each, name) for each in local]
        assert numbers["day_of_month" if name == "day" else name].tolist() == of_pandas
    weekmask, free = calendar.working_days
    for each, so_far, left in zip(local, numbers["business_day"], numbers["business_days_left"], strict=True):
        month = pd.date_range(each.date().replace(day=1), periods=each.days_in_month)
        working = [day.date() for day in month if weekmask[day.weekday()] == "1" and str(day.date()) not in free]
        assert (so_far, left) == (sum(day <= each.date() for day in working), sum(day > each.date() for day in working))


@given(calendars(), moments())
@settings(max_examples=60, deadline=None)
def test_a_moment_has_the_same_bits_alone_as_among_others(calendar: Calendar, some: np.ndarray) -> None:
    features = time_features(EVERYTHING, calendar)
    numbers, waves = features.numbers(some), features.waves(some)
    assert numbers.shape == (len(some), len(features.number_names()))
    assert waves.shape == (len(some), 2 * len(features.wave_names()) + len(features.event_names))
    assert numbers[:, -len(features.event_names) :].tobytes() == features.events(some).tobytes()
    for place, moment in enumerate(some):
        alone = np.array([moment])
        assert features.numbers(alone)[0].tobytes() == numbers[place].tobytes()
        assert features.waves(alone)[0].tobytes() == waves[place].tobytes()
    # Rows that stand apart, as in a panel of several entities.
    apart = np.repeat(some, 3)[::3]
    assert features.waves(apart).tobytes() == waves.tobytes()


@given(calendars(), moments())
@settings(max_examples=60, deadline=None)
def test_waves_are_points_on_circles(calendar: Calendar, some: np.ndarray) -> None:
    features = time_features(EVERYTHING, calendar)
    pairs = features.waves(some)[:, : 2 * len(features.wave_names())].reshape(len(some), -1, 2)
    np.testing.assert_allclose(np.square(pairs).sum(axis=-1), 1, rtol=1e-5)


def test_terms_of_a_season_come_back_after_a_season_of_steps() -> None:
    calendar = make_calendar("MS", "Europe/Berlin")
    features = time_features("fourier=12:2", calendar)
    months = calendar.range(pd.Timestamp("2019-12-31T23:00").value, pd.Timestamp("2023-01-01").value)
    waves = features.waves(months)
    np.testing.assert_array_equal(waves[:12], waves[12:24])
    # From January 1970 on.
    expected = [wave(2 * np.pi * term * 1 / 12) for term in (1, 2) for wave in (np.sin, np.cos)]
    np.testing.assert_allclose(waves[1], expected, atol=1e-6)
    assert len(np.unique(waves[:12].round(6), axis=0)) == 12


def test_holidays_are_those_of_the_day_in_the_zone_and_of_the_place() -> None:
    features = TimeFeatures(make_calendar("h", "Europe/Berlin"), holidays=(BERLIN,))
    assert features.number_names() == (
        "holiday DE-BE",
        "1 day before holiday DE-BE",
        "1 day after holiday DE-BE",
        "2 days after holiday DE-BE",
    )
    # Christmas begins at 23:00 UTC, and has two days.
    times = ("2024-12-23T22:00", "2024-12-24T22:00", "2024-12-24T23:00", "2024-12-26T22:00", "2024-12-26T23:00")
    assert column(features, "holiday DE-BE", *times) == [0, 0, 1, 1, 0]
    assert column(features, "1 day before holiday DE-BE", *times) == [0, 1, 1, 0, 0]
    assert column(features, "1 day after holiday DE-BE", *times) == [0, 0, 0, 1, 1]
    assert column(features, "2 days after holiday DE-BE", *times) == [0, 0, 0, 0, 1]
    # Women's day is one in Berlin alone.
    germany = TimeFeatures(features.calendar, holidays=(Holidays("DE"),))
    assert column(features, "holiday DE-BE", "2024-03-08T12:00") == [1]
    assert column(germany, "holiday DE", "2024-03-08T12:00") == [0]


@pytest.mark.parametrize(
    ("frequency", "step", "first", "last"),
    [
        ("MS", "2024-12-01", "2024-12-01", "2024-12-31"),
        ("ME", "2024-12-31", "2024-12-01", "2024-12-31"),
        ("QE", "2024-06-30", "2024-04-01", "2024-06-30"),
        ("W-MON", "2024-12-23", "2024-12-23", "2024-12-29"),
        ("2W-WED", "2024-12-25", "2024-12-25", "2025-01-07"),
        ("D", "2024-12-25", "2024-12-25", "2024-12-25"),
        ("B", "2024-12-27", "2024-12-27", "2024-12-27"),
    ],
)
def test_long_steps_count_the_holidays_that_they_cover(frequency: str, step: str, first: str, last: str) -> None:
    calendar = make_calendar(frequency, "America/New_York")
    moment = np.array([pd.Timestamp(step, tz="America/New_York").as_unit("ns").value])
    days = [day.date() for day in pd.date_range(first, last)]
    free = {dt.date(2024, 5, 27), dt.date(2024, 6, 19), dt.date(2024, 12, 25), dt.date(2025, 1, 1)}
    for distance, name in enumerate(("holiday US", "1 day before holiday US")):
        features = TimeFeatures(calendar, holidays=(Holidays("US", before=1),))
        found = features.numbers(moment)[0, features.number_names().index(name)]
        assert found == sum(day + dt.timedelta(distance) in free for day in days)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize(
    ("frequency", "label", "expected"),
    [
        ("W-SUN", "end", [0, 2, 1]),
        ("W-SUN", "start", [2, 1, 0]),
        ("W-SAT", "end", [0, 2, 1]),
        ("4W-SUN", "end", [0, 3]),
        ("W-MON", "start", [0, 2, 1]),
    ],
)
def test_weeks_have_the_holidays_of_their_days_whichever_of_them_is_their_label(
    frequency: str, label: str, expected: list[int], zone: str
) -> None:
    first = {"W-SUN": "2023-12-24", "W-SAT": "2023-12-23", "4W-SUN": "2023-12-24", "W-MON": "2023-12-18"}[frequency]
    calendar = make_calendar(frequency, zone, week_label=label)
    steps = pd.date_range(first, periods=len(expected), freq=frequency, tz=zone, unit="ns").asi8
    features = TimeFeatures(calendar, holidays=(Holidays("DE"),))
    assert features.events(steps)[:, 0].tolist() == expected
    # What a pair keeps of its calendar tells the label, and told the first day before there was a choice.
    assert ("week_label" in calendar.stored_text) is (label == "end")
    again = TimeFeatures(calendar_of(calendar.stored_text, 0), holidays=(Holidays("DE"),))
    assert again.events(steps).tobytes() == features.events(steps).tobytes()
    # No step is another one.
    assert make_calendar(frequency, zone).is_on(steps, int(calendar.phases(steps)[0])).all()
    assert calendar.name.startswith(("week to", "4 weeks to") if label == "end" else "week from")


def test_sums_of_weeks_as_pandas_writes_them_have_their_holidays() -> None:
    days = pd.date_range("2023-11-27", "2024-01-14", unit="ns")
    free = [day in country_holidays("DE", years=(2023, 2024)) for day in days.date]
    weeks = pd.Series(np.array(free, dtype=float), index=days).resample("W-SUN").sum()
    features = TimeFeatures(make_calendar("W-SUN", week_label="end"), holidays=(Holidays("DE"),))
    assert features.events(weeks.index.as_unit("ns").asi8)[:, 0].tolist() == weeks.tolist()


def test_a_text_tells_all_and_nothing_else_is_read_of_it() -> None:
    features = time_features(EVERYTHING, make_calendar("D"))
    assert features_text(features.parts, features.fourier, features.holidays) == EVERYTHING
    assert features.holidays[0] == BERLIN


@pytest.mark.parametrize(
    ("frequency", "expected"),
    [
        ("15min", ("hour", "weekday")),
        ("D", ("weekday", "month")),
        ("B", ("weekday", "month")),
        ("W", ("week",)),
        ("ME", ("month",)),
        ("QS", ("month",)),
    ],
)
def test_the_usual_parts_follow_from_the_frequency(frequency: str, expected: tuple[str, ...]) -> None:
    assert usual_parts(make_calendar(frequency)) == expected


@pytest.mark.parametrize(
    ("given_", "near"),
    [("Germany", "DE (germany)"), ("DEU", "DE (germany)"), ("UK", "GB (united kingdom)"), ("us", "US (united states)")],
)
def test_a_country_that_is_none_is_told_which_come_near(given_: str, near: str) -> None:
    with pytest.raises(CalendarError, match=f"no holidays of country '{given_}'") as error:
        HolidayDays(given_).check()
    assert near in str(error.value)
    with pytest.raises(CalendarError, match=r"country DE has no subdivision 'Berlin' of holidays; such as .*BE"):
        HolidayDays("DE", "Berlin").check()


def test_no_moments_have_no_features() -> None:
    features = time_features(EVERYTHING, make_calendar("D"))
    assert features.numbers(np.zeros(0, dtype=np.int64)).shape == (0, len(features.number_names()))
