"""Windows of months, business days and local days: the same bits from the table, from pushes and at any cut-off."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import DatasetConfig
from mlplatform.datamodule import Panel
from mlplatform.features.feast.repository import apply_dataset
from mlplatform.features.online.materialize import materialize_online
from mlplatform.features.online.push import push_rows
from mlplatform.features.online.read import read_windows
from mlplatform.features.retrieval.offline import offline_windows
from mlplatform.settings import Settings
from mlplatform.testing import write_feature_table
from mlplatform_tests.features.conftest import timeseries

COLUMNS = ["load", "oil", "mode"]
HOUR = 3_600 * 1_000_000_000
WINDOW = 30
# Frequency, zone, how long after the beginning of a step rows are, and when they begin.
CALENDARS = [
    ("MS", "UTC", 0, "2010-01-01"),
    ("ME", "Europe/Berlin", 0, "2010-01-01"),
    ("QS-FEB", "America/New_York", 6, "1995-01-01"),
    ("B", "Europe/Berlin", 17, "2025-02-20"),
    ("C", "America/New_York", 0, "2024-11-20"),
    ("D", "Europe/Berlin", 0, "2025-03-01"),
    ("D", "America/Sao_Paulo", 0, "2018-10-20"),
    ("D", "America/Havana", 0, "2025-10-15"),
    ("h", "America/New_York", 0, "2025-11-01"),
    ("h", "Australia/Lord_Howe", 0, "2025-10-04"),
    ("30min", "Australia/Lord_Howe", 0, "2025-04-05 18:00"),
    ("6h", "Europe/Berlin", 0, "2025-03-24"),
    ("2W-MON", "UTC", 7, "2020-01-01"),
]


def dataset_of(frequency: str, zone: str) -> DatasetConfig:
    more = {"holidays": ["2024-11-28", "2024-12-25", "2025-01-01"]} if frequency == "C" else {}
    given = timeseries("plant", WINDOW).model_dump(mode="json")
    return DatasetConfig.model_validate({**given, "frequency": frequency, "timezone": zone, **more})


def rows_of(dataset: DatasetConfig, hours: int, begin: str) -> pd.DataFrame:
    """Entity 1 has 60 steps with a gap, entity 2 begins twenty steps later; both end with the last step."""
    calendar, rng = dataset.calendar, np.random.default_rng(0)
    first = int(calendar.ordinals(np.array([pd.Timestamp(begin).value]))[0]) + 1
    steps = {1: np.delete(np.arange(60), [30, 31, 32]), 2: np.arange(20, 60)}
    parts = []
    for entity, own in steps.items():
        times = pd.to_datetime(calendar.moments(first + own, hours * HOUR), utc=True)
        numbers = rng.normal(size=(2, len(own))).astype(np.float32)
        modes = rng.choice(np.array(["eco", None], dtype=object), len(own))
        parts.append(
            pd.DataFrame({"entity_id": entity, "event_timestamp": times, "load": numbers[0], "oil": numbers[1]})
            .assign(mode=modes)
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def bits(panel: Panel) -> list[object]:
    numbers = [panel.columns[name].tobytes() for name in ("load", "oil")]
    return [panel.timestamps.tolist(), *numbers, panel.columns["mode"].tolist()]


@pytest.mark.parametrize(("frequency", "zone", "hours", "begin"), CALENDARS)
def test_windows_have_the_same_bits_on_every_road(
    frequency: str, zone: str, hours: int, begin: str, settings: Settings
) -> None:
    dataset = dataset_of(frequency, zone)
    rows = rows_of(dataset, hours, begin)
    known = rows.groupby("entity_id").cumcount(ascending=False) >= 25
    write_feature_table(rows[known], dataset, settings)
    apply_dataset(dataset, settings)
    materialize_online(dataset, settings)
    # In another order than that of time, and one step of each entity once more.
    late = rows[~known].sample(frac=1, random_state=1)
    for start in range(0, len(late), 17):
        report = push_rows(dataset, late.iloc[start : start + 17], settings)
        assert (report.off_grid, report.invalid, report.far, report.too_old) == (0, 0, 0, 0), report
    pushed = bits(read_windows(dataset, [1, 2], COLUMNS, WINDOW, settings))
    write_feature_table(rows, dataset, settings)
    assert materialize_online(dataset, settings) is not None
    assert bits(read_windows(dataset, [1, 2], COLUMNS, WINDOW, settings)) == pushed
    (newest,) = offline_windows(dataset, [1, 2], ["now"], COLUMNS, WINDOW, settings)
    assert bits(newest) == pushed
    # Entity 2 has no gap.
    times = rows.loc[rows["entity_id"] == 2, "event_timestamp"].reset_index(drop=True)
    expected = times.iloc[-WINDOW:].dt.tz_localize(None).to_numpy()
    assert newest.timestamps[WINDOW:].tolist() == expected.astype("datetime64[ns]").tolist()
    # Just before a step, the step before is the last one.
    cutoffs = [times[30], times[31] - pd.Timedelta(1, "us")]
    at, before = offline_windows(dataset, [1], cutoffs, COLUMNS, 10, settings)
    assert bits(at) == bits(before)
    assert pd.Timestamp(at.timestamps[-1], tz="UTC") == times[30]


def test_a_row_between_two_steps_is_dropped(settings: Settings) -> None:
    dataset = dataset_of("MS", "Europe/Berlin")
    rows = rows_of(dataset, 0, "2010-01-01")
    write_feature_table(rows, dataset, settings)
    apply_dataset(dataset, settings)
    materialize_online(dataset, settings)
    newest = rows["event_timestamp"].max()
    wrong = rows.iloc[[-1]].assign(event_timestamp=newest + pd.Timedelta(days=14))
    assert push_rows(dataset, wrong, settings).off_grid == 1


def test_a_pushed_time_without_a_zone_is_in_that_of_the_dataset(settings: Settings) -> None:
    dataset = dataset_of("D", "Europe/Berlin")
    rows = rows_of(dataset, 0, "2025-03-01")
    write_feature_table(rows, dataset, settings)
    apply_dataset(dataset, settings)
    materialize_online(dataset, settings)
    newest = rows["event_timestamp"].max().tz_convert("Europe/Berlin")
    after = (newest + pd.DateOffset(days=1)).strftime("%Y-%m-%d")
    report = push_rows(dataset, rows.iloc[[-1]].assign(event_timestamp=after), settings)
    assert (report.added, report.written) == (1, 1)
