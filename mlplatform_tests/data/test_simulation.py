"""The simulated fleet: repeatable, growing at the end only, and changed by faults as promised."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from mlplatform.data.simulation import FleetOptions, simulate_fleet

PERIOD = {"entities": 3, "start": "2024-01-01", "end": "2024-03-01"}
FAULT_START = pd.Timestamp("2024-02-01", tz="UTC")


def fleet(**options: Any) -> pd.DataFrame:
    return simulate_fleet(FleetOptions.model_validate(PERIOD | options))


def fault(kind: str, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "start": FAULT_START.isoformat(), "severity": 0.4} | fields


def test_rows_have_the_promised_form() -> None:
    frame = fleet()
    columns = ["transformer_id", "timestamp", "load_pu", "ambient_c", "top_oil_c", "hot_spot_c", "cooling"]
    assert list(frame.columns) == columns
    assert frame["timestamp"].dtype == pd.DatetimeTZDtype("ns", "UTC")
    assert set(frame["cooling"]) == {"ONAN", "ONAF"}
    assert frame["transformer_id"].unique().tolist() == [1, 2, 3]
    assert not frame.duplicated(["transformer_id", "timestamp"]).any()


def test_the_seed_decides() -> None:
    pd.testing.assert_frame_equal(fleet(seed=3), fleet(seed=3))
    assert not fleet(seed=3)["load_pu"].equals(fleet(seed=4)["load_pu"])


@pytest.mark.parametrize("end", ["2024-03-01T01:00", "2024-03-02T05:00", "2024-07-01"])
def test_a_later_end_changes_no_earlier_row(end: str) -> None:
    short, long = fleet(), fleet(end=end)
    prefix = long[long["timestamp"] < pd.Timestamp("2024-03-01", tz="UTC")].reset_index(drop=True)
    pd.testing.assert_frame_equal(short, prefix, check_exact=True)


@pytest.mark.parametrize("kind", ["cooling_failure", "load_regime"])
def test_a_fault_changes_no_row_before_it(kind: str) -> None:
    healthy, faulty = fleet(), fleet(faults=[fault(kind)])
    before = healthy["timestamp"] < FAULT_START
    pd.testing.assert_frame_equal(healthy[before], faulty[faulty["timestamp"] < FAULT_START], check_exact=True)
    assert not healthy[~before].equals(faulty[~before])


def test_more_transformers_change_no_other() -> None:
    more = fleet(entities=5)
    pd.testing.assert_frame_equal(fleet(), more[more["transformer_id"] <= 3], check_exact=True)


def test_a_cooling_failure_heats_the_oil_at_the_same_load() -> None:
    healthy, faulty = (fleet(outlier_rate=0, faults=faults) for faults in ([], [fault("cooling_failure")]))
    during = healthy["timestamp"] >= FAULT_START + pd.Timedelta("1D")
    for column in ("load_pu", "ambient_c"):
        np.testing.assert_array_equal(healthy[column], faulty[column])
    heat = (faulty["top_oil_c"] - healthy["top_oil_c"])[during]
    assert heat.min() > 3.0
    assert heat.mean() > 10.0
    assert set(faulty["cooling"][during]) == {"ONAN"}


def test_a_load_regime_raises_the_load_and_moves_its_peak_into_the_night() -> None:
    faulty = fleet(outlier_rate=0, faults=[fault("load_regime", severity=1.0)])
    is_after = faulty["timestamp"] >= FAULT_START
    by_hour = faulty.groupby([is_after, faulty["timestamp"].dt.hour])["load_pu"].mean().unstack()
    assert by_hour.loc[True].mean() > 1.5 * by_hour.loc[False].mean()
    assert by_hour.loc[True].idxmax() in (1, 2, 3)
    assert by_hour.loc[False].idxmax() > 6


def test_a_fault_ends_and_keeps_to_its_transformers() -> None:
    end = "2024-02-08T00:00:00+00:00"
    healthy, faulty = fleet(), fleet(faults=[fault("load_regime", end=end, entities=[2])])
    changed = healthy["load_pu"] != faulty["load_pu"]
    assert set(healthy["transformer_id"][changed]) == {2}
    assert healthy["timestamp"][changed].min() >= FAULT_START
    assert healthy["timestamp"][changed].max() < pd.Timestamp(end)


def test_gaps_come_in_bursts_at_about_their_rate() -> None:
    options = {"end": "2025-01-01", "outlier_rate": 0}
    complete, frame = fleet(gap_rate=0, **options), fleet(gap_rate=0.05, **options)
    missing = 1.0 - len(frame) / len(complete)
    assert 0.03 < missing < 0.07
    steps = frame.groupby("transformer_id")["timestamp"].diff().dropna() // pd.Timedelta("1h") - 1
    assert 4.0 < steps[steps > 0].mean() < 9.0


def test_outliers_are_mostly_impossible_and_only_measured() -> None:
    clean, frame = fleet(outlier_rate=0), fleet(outlier_rate=0.02)
    columns = ["load_pu", "ambient_c", "top_oil_c", "hot_spot_c"]
    is_changed = clean[columns] != frame[columns]
    assert is_changed.sum(axis=1).max() == 1
    assert 0.01 < is_changed.any(axis=1).mean() < 0.03
    values = frame[columns].to_numpy()[is_changed.to_numpy()]
    assert 0.55 < np.isin(values, [99.99, 850.0, -200.0]).mean() < 0.85
    assert (clean["cooling"] == frame["cooling"]).all()


def test_load_has_a_daily_and_a_weekly_shape() -> None:
    frame = fleet(outlier_rate=0, end="2025-01-01")
    times = frame["timestamp"].dt
    by_hour = frame.groupby(times.hour)["load_pu"].mean()
    by_day = frame.groupby(times.dayofweek)["load_pu"].mean()
    assert by_hour.max() > 1.3 * by_hour.min()
    assert by_day[[5, 6]].max() < by_day[:5].min()


def test_other_frequencies_are_possible() -> None:
    frame = fleet(frequency="15min", end="2024-01-03", gap_rate=0)
    assert len(frame) == 3 * 2 * 96


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"end": "2023-01-01"}, "end must be after start"),
        ({"frequency": "-1h"}, "frequency must be a positive time step"),
        ({"faults": [fault("cooling_failure", entities=[9])]}, "transformers \\[9\\], but the fleet has 1 to 3"),
        ({"faults": [fault("earthquake")]}, "cooling_failure"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FleetOptions.model_validate(PERIOD | options)


def test_eight_transformers_and_a_year_take_under_a_second() -> None:
    fleet(entities=1, end="2024-01-02")  # imports
    start = time.perf_counter()
    simulate_fleet(FleetOptions(entities=8))
    assert time.perf_counter() - start < 1.0
