"""Rows of clocks that were wrong: after the present, or decades away from all others."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.data.plausible_times import judge_times
from mlplatform.data.raw import ingest
from mlplatform.data.raw_table import read_raw
from mlplatform.data.validation import Basis, validate
from mlplatform.settings import Settings
from mlplatform.testing.meters import meter_rows
from mlplatform_tests.data.conftest import hourly_dataset

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
YEAR = dt.timedelta(days=366)


def hours(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[ns]")


def judged(*texts: str, **options: Any) -> list[str]:
    found = judge_times(hours(*texts), NOW, YEAR, **options)
    return ["late" if late else "far" if far else "" for late, far in zip(found.late, found.far, strict=True)]


def nanoseconds(text: str) -> int:
    return int(np.datetime64(text, "ns").astype(np.int64))


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (("2024-01-01", "1970-01-01", "2024-01-02"), ["", "far", ""]),
        (("2024-01-01", "2031-01-01", "2024-01-02"), ["", "late", ""]),
        (("2026-01-01T00:00:00", "2026-01-01T00:00:00.000000001"), ["", "late"]),
        (("1700-01-01", "2024-01-01", "2024-06-01"), ["far", "", ""]),
        (("2024-01-01", "NaT", "2024-01-02"), ["", "", ""]),
        # Exactly the gap belongs together; of groups of one size the later one is the bulk.
        (("2022-12-31", "2024-01-01"), ["", ""]),
        (("2022-12-30", "2024-01-01"), ["far", ""]),
        # What belongs together through others stays.
        (("2022-06-01", "2023-02-01", "2023-12-01"), ["", "", ""]),
        ((), []),
    ],
)  # fmt: skip
def test_what_is_late_and_what_is_far(times: tuple[str, ...], expected: list[str]) -> None:
    assert judged(*times) == expected


def test_earlier_rows_are_the_bulk_however_many_are_far_from_them() -> None:
    span = (nanoseconds("2023-01-01"), nanoseconds("2023-06-01"))
    assert judged("1970-01-01", "1970-01-02", "1970-01-03", "2023-03-01", span=span) == ["far", "far", "far", ""]
    # A source that was silent for years and speaks again is believed.
    assert judged("2025-12-01", span=span) == [""]
    found = judge_times(hours("1970-01-01", "2025-12-01"), NOW, YEAR, span)
    assert found.span == (span[0], nanoseconds("2025-12-01"))


@given(st.lists(st.integers(0, 60 * 366), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_says_nothing(days: list[int], random: Any) -> None:
    times = np.datetime64("1966-01-01", "ns") + np.array(days) * np.timedelta64(1, "D")
    order = list(range(len(times)))
    random.shuffle(order)
    first, again = (judge_times(rows, NOW, YEAR) for rows in (times, times[order]))
    assert (first.far[order] == again.far).all()
    assert (first.late[order] == again.late).all()
    assert first.span == again.span


@pytest.mark.parametrize("wrong", ["1970-01-01T00:00:00Z", "2131-01-01T00:00:00Z"])
def test_a_glitch_is_quarantined_and_everything_else_is_stored(settings: Settings, wrong: str) -> None:
    rows = meter_rows({"a": 480, "b": 480})
    rows.loc[100, "time"] = wrong
    assert settings.data_dir is not None
    rows.to_csv(settings.data_dir / "meters.csv", index=False)
    dataset = hourly_dataset(source={"uri": "meters.csv"}, entity_column="line", columns={"load": {}})
    report = ingest(dataset, settings)
    assert (report.rows, report.quarantined) == (959, 1)
    stored = read_raw(dataset, settings)["event_timestamp"]
    assert stored.min() == pd.Timestamp("2024-01-01T00:00Z")
    assert stored.max() == pd.Timestamp("2024-01-20T23:00Z")


def test_an_increment_is_judged_by_what_is_stored() -> None:
    dataset = hourly_dataset(time_column="time", entity_column="line", columns={"load": {}})
    rows = meter_rows({"a": 48})
    basis = validate(rows, dataset, Basis()).basis
    assert basis.span_ns == (nanoseconds("2024-01-19T00:00"), nanoseconds("2024-01-20T23:00"))
    glitch = validate(rows.head(1).assign(time="1970-01-01T00:00:00Z"), dataset, basis)
    assert glitch.reasons == {"time: more than max_gap 1096D from the other rows": 1}
    assert glitch.basis.span_ns == basis.span_ns


def stored_of(batches: list[pd.DataFrame]) -> tuple[set[int], Basis]:
    """Return the times that are left of batches validated one after another, and what they settled."""
    dataset = hourly_dataset(time_column="time", entity_column="line", columns={"load": {}})
    basis, left = Basis(), set()
    for batch in batches:
        found = validate(batch, dataset, basis, newest_wins=True)
        basis = found.basis
        left = (left - found.displaced_ns) | set(found.rows["event_timestamp"].astype("int64").tolist())
    return left, basis


@pytest.mark.parametrize(("hours_each", "wrong", "second"), [(1, 1, 0), (1, 3, 7), (5, 2, 1800), (30, 5, 0)])
def test_a_stream_that_begins_with_wrong_clocks_ends_as_if_they_had_come_later(
    hours_each: int, wrong: int, second: int
) -> None:
    rows = meter_rows({"a": 40})
    epoch = pd.date_range("1970-01-01", periods=wrong, freq="h") + pd.Timedelta(seconds=second)
    glitches = rows.head(wrong).assign(time=epoch.strftime("%Y-%m-%dT%H:%M:%SZ"))
    cut = [rows.iloc[start : start + hours_each] for start in range(0, 40, hours_each)]
    left, basis = stored_of([glitches, *cut])
    good = pd.to_datetime(rows["time"]).astype("int64").tolist()
    assert left <= set(good)
    # Rows of the first minutes, fewer than the wrong ones, may have been doubted.
    assert set(good[wrong + hours_each :]) <= left
    assert basis.span_ns is not None
    assert good[0] <= basis.span_ns[0] <= min(left)
    assert basis.span_ns[1] == good[-1]


def test_an_old_archive_that_went_silent_stays() -> None:
    """Once there are enough rows, a source may be silent for as long as it likes."""
    old = meter_rows({"a": 200}, end="2016-01-20T23:00:00Z")
    left, basis = stored_of([old, meter_rows({"a": 300})])
    assert len(left) == 500
    assert basis.early_ns is None


def test_a_time_that_is_quarantined_settles_no_grid() -> None:
    dataset = hourly_dataset(time_column="time", entity_column="line", columns={"load": {}})
    late = meter_rows({"a": 1}).assign(time="2131-01-01T00:20:00Z")
    basis = validate(late, dataset).basis
    assert (basis.phase_ns, basis.span_ns) == (None, None)
    assert not validate(meter_rows({"a": 5}), dataset, basis).reasons


def test_what_is_known_of_the_future_is_let_in_by_a_longer_tolerance() -> None:
    soon = (dt.datetime.now(dt.UTC) + dt.timedelta(days=6)).replace(minute=0, second=0, microsecond=0)
    rows = pd.DataFrame({"time": [soon.isoformat()], "line": ["a"], "load": [1.0]})
    options: dict[str, Any] = {"time_column": "time", "entity_column": "line", "columns": {"load": {}}}
    refused = validate(rows, hourly_dataset(**options))
    assert refused.reasons == {"time: more than future_tolerance 1D after now": 1}
    assert not validate(rows, hourly_dataset(**options, future_tolerance="7D")).reasons
