"""Calendars against pandas' own offsets, against brute force over every step, and against themselves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.calendars import Calendar, CalendarError, calendar_from_text, infer_frequency, make_calendar

HOUR = 3_600 * 1_000_000_000
START, END = pd.Timestamp("1985-01-01"), pd.Timestamp("2055-01-01")
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",  # clocks skipped midnight until 2018
    "America/Havana",  # midnight comes twice
    "America/St_Johns",  # until 2011 at one minute past midnight
    "Australia/Lord_Howe",  # by half an hour
    "Asia/Kolkata",
)
FREQUENCIES = (
    "15min",
    "h",
    "6h",
    "D",
    "3D",
    "B",
    "W-MON",
    "2W-FRI",
    "MS",
    "ME",
    "2MS",
    "QS",
    "QS-FEB",
    "QE",
    "YS",
    "YE-JUN",
)
FREE_DAYS = ("1999-12-31", "2025-12-24", "2025-12-25", "2026-01-01")


def calendars() -> st.SearchStrategy[Calendar]:
    made = st.builds(make_calendar, st.sampled_from(FREQUENCIES), st.sampled_from(ZONES))
    custom = st.builds(make_calendar, st.just("C"), st.sampled_from(ZONES), st.just("1111010"), st.just(FREE_DAYS))
    return made | custom


def moments() -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.integers(START.value, END.value), min_size=1, max_size=20).map(np.array)


def offset(frequency: str) -> pd.offsets.BaseOffset:
    return pd.tseries.frequencies.to_offset(frequency)


class TestAgainstPandas:
    """The steps that pandas has."""

    @pytest.mark.parametrize("frequency", [each for each in FREQUENCIES if each not in ("15min", "h")])
    def test_steps_without_a_zone_are_those_of_pandas(self, frequency: str) -> None:
        expected = pd.date_range(START, END, freq=offset(frequency), unit="ns").asi8
        calendar = make_calendar(frequency)
        assert calendar.range(int(expected[0]), END.value).tolist() == expected.tolist()

    @pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kolkata"])
    @pytest.mark.parametrize("frequency", ["D", "B", "W-MON", "MS", "ME", "QE", "YS", "2QS-FEB"])
    def test_steps_on_the_wall_clock_are_those_of_pandas(self, zone: str, frequency: str) -> None:
        # Until 2037, from where on pandas' own zones stand still.
        expected = pd.date_range("1985-01-01", "2037-01-01", freq=offset(frequency), tz=zone, unit="ns").asi8
        calendar = make_calendar(frequency, zone)
        assert calendar.range(int(expected[0]), int(expected[-1])).tolist() == expected.tolist()

    @pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
    def test_hours_go_on_where_clocks_change(self, zone: str) -> None:
        expected = pd.date_range("2025-01-01", "2026-01-01", freq="h", tz=zone, unit="ns").asi8
        calendar = make_calendar("h", zone)
        assert calendar.range(int(expected[0]), int(expected[-1])).tolist() == expected.tolist()
        assert (np.diff(calendar.ordinals(expected)) == 1).all()

    @settings(max_examples=200, deadline=None)
    @given(st.sampled_from(["B", "W-MON", "MS", "ME", "QS", "QE", "YS", "YE"]), moments(), st.integers(-50, 50))
    def test_so_many_steps_later_is_what_adding_offsets_gives(self, frequency: str, at: np.ndarray, steps: int) -> None:
        days = pd.DatetimeIndex(at.astype("datetime64[ns]")).normalize()
        calendar = make_calendar(frequency)
        floored = calendar.floor(days.asi8)
        assert floored.tolist() == [offset(frequency).rollback(day).value for day in days]
        moved = calendar.shift(floored, steps)
        assert moved.tolist() == [(pd.Timestamp(int(each)) + steps * offset(frequency)).value for each in floored]

    def test_custom_business_days_leave_out_holidays_and_free_weekdays(self) -> None:
        offsets = pd.offsets.CustomBusinessDay(weekmask="1111010", holidays=list(FREE_DAYS))
        expected = pd.date_range("1999-12-01", "2027-01-01", freq=offsets, unit="ns").asi8
        calendar = make_calendar("C", "UTC", "1111010", FREE_DAYS)
        assert calendar.range(int(expected[0]), int(expected[-1])).tolist() == expected.tolist()


class TestLaws:
    """What holds for every calendar in every zone."""

    @settings(max_examples=300, deadline=None)
    @given(calendars(), moments())
    def test_ordinals_and_moments_are_inverse(self, calendar: Calendar, at: np.ndarray) -> None:
        ordinals = calendar.ordinals(at)
        steps = calendar.moments(ordinals)
        assert calendar.ordinals(steps).tolist() == ordinals.tolist()
        assert (steps <= at).all()
        assert (calendar.moments(ordinals + 1) > at).all()
        assert calendar.is_on(steps, 0).all()

    @settings(max_examples=300, deadline=None)
    @given(calendars(), moments())
    def test_ordinals_rise_with_time(self, calendar: Calendar, at: np.ndarray) -> None:
        assert (np.diff(calendar.ordinals(np.sort(at))) >= 0).all()

    @settings(max_examples=300, deadline=None)
    @given(calendars(), st.integers(0, 23), moments(), st.integers(-150, 150))
    def test_steps_between_undo_a_shift(self, calendar: Calendar, hour: int, at: np.ndarray, steps: int) -> None:
        anchors = calendar.moments(calendar.ordinals(at), hour * HOUR % min(calendar.nominal_ns, 24 * HOUR))
        anchors = anchors[calendar.is_on(anchors, int(calendar.phases(anchors)[0]))]
        moved = calendar.shift(anchors, steps)
        count, is_exact = calendar.between(anchors, moved)
        assert is_exact.all()
        assert (count == steps).all()
        before, is_exact = calendar.between(anchors, moved - 1)
        assert not is_exact.any()
        assert (before == steps - 1).all()

    @settings(max_examples=100, deadline=None)
    @given(calendars())
    def test_a_calendar_is_read_from_its_text(self, calendar: Calendar) -> None:
        assert calendar_from_text(calendar.text) is calendar or calendar_from_text(calendar.text).text == calendar.text

    @pytest.mark.parametrize("zone", ZONES)
    @pytest.mark.parametrize("frequency", ["h", "6h", "D", "B", "MS"])
    def test_steps_are_counted_as_one_would_on_fingers(self, frequency: str, zone: str) -> None:
        calendar = make_calendar(frequency, zone)
        first, last = calendar.ordinals(np.array([pd.Timestamp("2010-06-01").value, pd.Timestamp("2012-06-01").value]))
        steps = calendar.moments(np.arange(first, last))
        assert (np.diff(steps) > 0).all()
        at = np.random.default_rng(0).integers(steps[0], steps[-1], 5_000)
        expected = np.searchsorted(steps, at, side="right") - 1
        assert calendar.steps(steps[0], at).tolist() == expected.tolist()


class TestZones:
    """Local time where clocks change."""

    def test_a_day_is_what_lies_between_two_midnights(self) -> None:
        days = make_calendar("D", "Europe/Berlin").range(
            *(pd.Timestamp(f"2025-10-{day} 22:00").value for day in (24, 27))
        )
        assert np.diff(days).tolist() == [24 * HOUR, 25 * HOUR]

    def test_a_midnight_that_clocks_skip_is_the_first_moment_of_its_day(self) -> None:
        calendar = make_calendar("D", "America/Sao_Paulo")
        expected = pd.Timestamp("2018-11-04 01:00", tz="America/Sao_Paulo").value
        eve = np.array([pd.Timestamp("2018-11-03", tz="America/Sao_Paulo").value])
        assert calendar.shift(eve, 1).tolist() == [expected]
        assert calendar.shift(np.array([expected]), -1).tolist() == eve.tolist()
        assert calendar.phases(np.array([expected])).tolist() == [0]

    def test_hours_of_lord_howe_are_those_of_its_clocks(self) -> None:
        hours = ["00:00+10:30", "01:00+10:30", "02:30+11:00", *(f"0{hour}:00+11:00" for hour in range(3, 7))]
        moments = pd.to_datetime([f"2025-10-05 {hour}" for hour in hours], utc=True).as_unit("ns").asi8
        calendar = make_calendar("h", "Australia/Lord_Howe")
        assert calendar.is_on(moments, 0).all()
        assert calendar.steps(moments[0], moments).tolist() == list(range(7))

    def test_a_local_time_that_comes_twice_is_the_earlier_unless_told(self) -> None:
        zone = make_calendar("h", "Europe/Berlin").zone
        wall = np.array([pd.Timestamp("2025-10-26 02:30").value] * 2)
        assert zone.is_twice(wall).all()
        found = zone.moments(wall, later=np.array([False, True]))
        assert pd.to_datetime(found).strftime("%H:%M").tolist() == ["00:30", "01:30"]

    def test_a_local_time_that_clocks_skip_is_read_with_the_offset_of_before(self) -> None:
        zone = make_calendar("h", "Europe/Berlin").zone
        wall = np.array([pd.Timestamp("2025-03-30 02:30").value])
        assert zone.is_skipped(wall).all()
        assert zone.wall(zone.moments(wall)).tolist() == [pd.Timestamp("2025-03-30 03:30").value]

    @settings(max_examples=100, deadline=None)
    @given(st.sampled_from(ZONES), moments())
    def test_clocks_show_what_pandas_says(self, name: str, at: np.ndarray) -> None:
        at = np.minimum(at, pd.Timestamp("2037-01-01").value)
        expected = pd.DatetimeIndex(at.astype("datetime64[ns]")).tz_localize("UTC").tz_convert(name).tz_localize(None)
        assert make_calendar("h", name).zone.wall(at).tolist() == expected.asi8.tolist()


class TestRefusals:
    """What no calendar is made of."""

    @pytest.mark.parametrize("frequency", ["", "1 fortnight", "0h", "-1D", "W-FOO", "MS-JAN", "B-MON", "QS-FOO"])
    def test_a_frequency_that_is_none(self, frequency: str) -> None:
        with pytest.raises(CalendarError, match="frequency must be a positive time step such as"):
            make_calendar(frequency)

    def test_a_zone_that_is_none(self) -> None:
        with pytest.raises(CalendarError, match=r"timezone must be the IANA name.*'Europe/Bonn'"):
            make_calendar("h", "Europe/Bonn")

    @pytest.mark.parametrize(("mask", "days"), [("0000000", ()), ("11", ()), ("1111100", ("25.12.2026",))])
    def test_days_that_are_none(self, mask: str, days: tuple[str, ...]) -> None:
        with pytest.raises(CalendarError, match=r"weekmask must be|holidays must be"):
            make_calendar("C", "UTC", mask, days)


class TestInference:
    """Frequencies that are read off times."""

    @pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
    @pytest.mark.parametrize(
        "frequency",
        [
            *("15min", "h", "6h", "36h", "D", "2D", "B", "W-MON", "2W-MON", "4W-MON", "13W-SUN"),
            *("28D", "30D", "31D", "91D", "364D", "365D"),
            *("MS", "ME", "2MS", "2ME", "6MS", "QS-JAN", "QE-OCT", "2QS", "2QE-NOV", "YS-JAN", "YE-JUN", "2YS", "5YE"),
        ],
    )
    def test_steps_are_found_again(self, frequency: str, zone: str) -> None:
        calendar = make_calendar(frequency, zone)
        ordinals = calendar.ordinals(np.array([pd.Timestamp("2020-05-05").value]))[0] + np.arange(45)
        times = calendar.moments(np.delete(ordinals, [7, 8, 31]))
        found = infer_frequency([times[::-1], times[:5]], zone).frequency
        assert (
            make_calendar(found, zone).range(int(times[0]), int(times[-1])).tolist()
            == calendar.moments(ordinals).tolist()
        )

    @pytest.mark.parametrize("first", ["2023-01-01", "2023-02-01", "2024-02-01", "2025-01-31", "2025-11-30"])
    @pytest.mark.parametrize("count", [3, 4, 5, 24])
    @pytest.mark.parametrize(("start", "end"), [("MS", "ME"), ("QS-FEB", "QE-OCT"), ("YS-FEB", "YE-JAN")])
    def test_months_are_no_days_however_long_most_of_them_are(
        self, start: str, end: str, count: int, first: str
    ) -> None:
        """Three days a month, a quarter or a year apart may be equally far apart."""
        for frequency in (start, end):
            times = pd.date_range(first, periods=count, freq=frequency, unit="ns").asi8
            assert infer_frequency([times]).frequency == frequency

    def test_a_step_of_days_fits_all_times_and_not_only_most_neighbours(self) -> None:
        days = pd.date_range("2023-01-01", periods=60, freq="28D", unit="ns")
        shifted = days[:30].append(days[30:] + pd.Timedelta(days=1))
        with pytest.raises(CalendarError, match="Say the frequency instead"):
            infer_frequency([shifted.asi8])

    def test_times_without_a_common_step_are_refused(self) -> None:
        times = np.cumsum(np.random.default_rng(0).integers(1, 10**13, 200))
        with pytest.raises(CalendarError, match="Say the frequency instead"):
            infer_frequency([times])
        with pytest.raises(CalendarError, match="at least 3 different times"):
            infer_frequency([times[:2]])
