"""A broken feed is named by what it did, and a drifting world is no broken feed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from mlplatform.promotion.broken_columns import broken_columns, late_columns

WEEK = 168
COLUMNS = ["load", "temp"]


def feed(hours: int, seed: int = 1) -> pd.DataFrame:
    """Return three lines whose temperature follows the load of now and of two hours before."""
    rng, pieces = np.random.default_rng(seed), []
    times = pd.date_range("2024-01-01", periods=hours, freq="h", tz="UTC")
    for line in (1, 2, 3):
        slow = np.convolve(rng.normal(0, 0.3, hours + 100), 0.95 ** np.arange(101), "valid")
        load = 50 + line + 10 * np.sin(2 * np.pi * (np.asarray(times.hour) - 8) / 24) + 3 * slow
        temp = 20 + 0.5 * load + 0.2 * np.roll(load, 2) + rng.normal(0, 0.5, hours)
        pieces.append(pd.DataFrame({"entity_id": line, "event_timestamp": times, "load": load, "temp": temp}))
    return pd.concat(pieces, ignore_index=True)


def weeks(change: Callable[[pd.DataFrame], pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the first week as it is, and the fifth after a change."""
    rows = feed(5 * WEEK)
    step = rows.groupby("entity_id").cumcount()
    return rows[step < WEEK], change(rows[step >= 4 * WEEK].copy())


@pytest.mark.parametrize(
    ("change", "kind", "columns", "words"),
    [
        (lambda r: r.assign(temp=r["temp"] * 1.8 + 32), "unit", ("temp",), "Celsius to Fahrenheit"),
        (lambda r: r.assign(temp=r["temp"] + 273.15), "unit", ("temp",), "Celsius to Kelvin"),
        (lambda r: r.assign(load=r["load"] / 1000), "unit", ("load",), "back, a factor of 1000"),
        (lambda r: r.assign(load=r["temp"], temp=r["load"]), "swapped", ("load", "temp"), "exchanged"),
        (lambda r: r.assign(load=51.5), "stuck", ("load",), "keeps one value"),
        (lambda r: r.assign(temp=np.nan), "missing", ("temp",), "0% of the rows"),
    ],
    ids=["fahrenheit", "kelvin", "thousandth", "swapped", "stuck", "missing"],
)
def test_what_a_feed_did_is_named(
    change: Callable[[pd.DataFrame], pd.DataFrame], kind: str, columns: tuple[str, ...], words: str
) -> None:
    (found,) = broken_columns(*weeks(change), COLUMNS)
    assert (found.kind, found.columns, found.entities) == (kind, columns, ("1", "2", "3"))
    assert words in found.evidence


def test_one_entity_is_enough() -> None:
    old, new = weeks(lambda rows: rows.assign(temp=rows["temp"].where(rows["entity_id"] != 2, rows["temp"] + 273.15)))
    (found,) = broken_columns(old, new, COLUMNS)
    assert found.entities == ("2",)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows,
        lambda rows: rows.assign(load=rows["load"] * 1.3, temp=rows["temp"] + 0.7 * 0.3 * rows["load"]),
        lambda rows: rows.assign(temp=rows["temp"] + 8),
        lambda rows: rows.assign(temp=20 + 1.5 * (rows["temp"] - 20)),
    ],
    ids=["nothing", "more load", "warmer", "failed cooling"],
)
def test_a_world_that_changes_is_no_broken_feed(change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    assert broken_columns(*weeks(change), COLUMNS) == []


def test_a_column_that_rests_is_not_stuck() -> None:
    def rain(rows: pd.DataFrame, hours: int) -> pd.DataFrame:
        return rows.assign(temp=np.where(rows.groupby("entity_id").cumcount() % 12 < hours, rows["temp"], 0.0))

    old, new = weeks(lambda rows: rows)
    assert broken_columns(rain(old, 9), rain(new, 0), COLUMNS) == []
    (found,) = broken_columns(rain(old, 9), new.assign(temp=17.0), COLUMNS)
    assert (found.kind, found.columns) == ("stuck", ("temp",))


def test_the_order_of_a_table_says_nothing() -> None:
    noise = np.random.default_rng(4)

    def table(rows: int) -> pd.DataFrame:
        columns = {"entity_id": noise.permutation(10**6)[:rows], "age": noise.integers(20, 24, rows).astype(float)}
        return pd.DataFrame({**columns, "dose": noise.normal(size=rows)})

    assert broken_columns(table(500), table(500).sort_values("age"), ["age", "dose"]) == []
    (found,) = broken_columns(table(500), table(500).assign(dose=1.5), ["age", "dose"])
    assert (found.kind, found.columns) == ("stuck", ("dose",))


@pytest.mark.parametrize("days", [2, 3, 5])
def test_a_break_younger_than_the_old_rows_are_many_is_seen(days: int) -> None:
    rows = feed(3 * WEEK)
    step = rows.groupby("entity_id").cumcount()
    is_broken = step >= 2 * WEEK - 24 * days
    new = rows.assign(
        load=rows["load"].where(~is_broken, rows["temp"]), temp=rows["temp"].where(~is_broken, rows["load"])
    )
    (found,) = broken_columns(rows[step < WEEK], new[(step >= WEEK) & (step < 2 * WEEK)], COLUMNS)
    assert (found.kind, found.columns) == ("swapped", ("load", "temp"))


def late_by(rows: pd.DataFrame, steps: int, since: int, entity: int | None = None) -> pd.DataFrame:
    """Return rows whose load is that of so many steps before, from a step on."""
    step = rows.groupby("entity_id").cumcount()
    is_late = (step >= since) & (True if entity is None else rows["entity_id"] == entity)
    return rows.assign(load=rows["load"].where(~is_late, rows.groupby("entity_id")["load"].shift(steps)))


@pytest.mark.parametrize(("steps", "since"), [(24, 2 * WEEK), (24, WEEK), (12, 3 * WEEK), (WEEK, 2 * WEEK)])
def test_a_column_that_falls_behind_is_named(steps: int, since: int) -> None:
    rows = late_by(feed(5 * WEEK), steps, since)
    is_old = rows.groupby("entity_id").cumcount() < WEEK
    (found,) = late_columns(rows[is_old], rows[~is_old], COLUMNS, WEEK)
    assert (found.kind, found.columns, found.entities) == ("late", ("load",), ("1", "2", "3"))
    assert f"repeats for {steps} rows what it was {steps} rows before" in found.evidence


def test_one_late_entity_is_enough_and_the_others_are_not_blamed() -> None:
    rows = late_by(feed(5 * WEEK), 24, 3 * WEEK, entity=2)
    is_old = rows.groupby("entity_id").cumcount() < WEEK
    (found,) = late_columns(rows[is_old], rows[~is_old], COLUMNS, WEEK)
    assert found.entities == ("2",)


def test_schedules_counts_and_values_that_rest_are_not_late() -> None:
    rows = feed(8 * WEEK)
    hours, noise = rows["event_timestamp"].dt.hour, np.random.default_rng(3)
    schedule = np.where(rows["event_timestamp"].dt.dayofweek < 5, 10.0 + hours, 5.0 + hours / 7)
    columns = {
        "load": schedule,
        "temp": noise.poisson(4, len(rows)).astype(float),
        "rain": np.where(noise.random(len(rows)) < 0.97, 0.0, noise.random(len(rows))),
        "degrees": np.round(rows["temp"]),
    }
    rows = rows.assign(**columns)
    is_old = rows.groupby("entity_id").cumcount() < 3 * WEEK
    assert late_columns(rows[is_old], rows[~is_old], list(columns), WEEK) == []


def test_a_cooling_that_fails_exchanges_nothing_and_an_exchange_is_named() -> None:
    """With a third column: the load is as it was beside the weather, so one column has changed and not two."""

    def plant(seed: int, warming: float) -> pd.DataFrame:
        rows, noise = feed(2 * WEEK, seed), np.random.default_rng(seed)
        wave = np.sin(2 * np.pi * (rows["event_timestamp"].dt.hour - 9) / 24)
        outside = 12 + 4 * wave + noise.normal(0, 1, len(rows))
        late = rows.groupby("entity_id").cumcount() >= WEEK
        return rows.assign(outside=outside, temp=outside + rows["load"] * np.where(late, warming, 0.5))

    for seed in range(3):
        rows = plant(seed, 0.75)
        step = rows.groupby("entity_id").cumcount()
        found = broken_columns(rows[step < WEEK], rows[step >= WEEK], ["load", "outside", "temp"])
        assert found == [], seed
        usual = plant(seed, 0.5)
        swapped = usual.assign(load=usual["temp"], temp=usual["load"])
        (named,) = broken_columns(usual[step < WEEK], swapped[step >= WEEK], ["load", "outside", "temp"])
        assert (named.kind, named.columns) == ("swapped", ("load", "temp"))


def test_two_units_at_once_are_named_only_if_they_explain_the_rows_exactly() -> None:
    """Of some thirty units for each of two columns, one pair leads near to any rows: to a hot plant in spring, too."""

    def plant(seed: int, warming: float, spring: float) -> pd.DataFrame:
        rows, noise = feed(2 * WEEK, seed), np.random.default_rng(seed)
        wave = np.sin(2 * np.pi * (rows["event_timestamp"].dt.hour - 9) / 24)
        late = rows.groupby("entity_id").cumcount() >= WEEK
        outside = 12 + 4 * wave + noise.normal(0, 1, len(rows)) + np.where(late, spring, 0.0)
        return rows.assign(outside=outside, temp=outside + rows["load"] * np.where(late, warming, 0.5))

    for spring in (4.0, 20.0):
        rows = plant(1, 1.1, spring)
        step = rows.groupby("entity_id").cumcount()
        assert broken_columns(rows[step < WEEK], rows[step >= WEEK], ["load", "outside", "temp"]) == [], spring
    usual = plant(1, 0.5, 0.0)
    other_units = usual.assign(temp=usual["temp"] * 1.8 + 32, load=usual["load"] * 1000)
    found = broken_columns(usual[step < WEEK], other_units[step >= WEEK], ["load", "outside", "temp"])
    assert {(each.kind, each.columns) for each in found} == {("unit", ("load",)), ("unit", ("temp",))}


def test_one_cold_day_is_no_other_unit() -> None:
    """Four days tell little of what a day may be: some unit leads near to a cold one on which the cooling fails."""
    noise, hours = np.random.default_rng(1), np.arange(5 * 24)
    day, is_last = np.sin(2 * np.pi * (hours - 9) / 24), hours >= 4 * 24
    load = 55 + 12 * np.sin(2 * np.pi * (hours - 8) / 24) + noise.normal(0, 2, len(hours))
    outside = 15 + 4.5 * day + noise.normal(0, 0.3, len(hours)) - np.where(is_last, 7.3 + 2 * day, 0.0)
    rows = pd.DataFrame(
        {
            "entity_id": 3,
            "event_timestamp": pd.date_range("2024-01-01", periods=len(hours), freq="h", tz="UTC"),
            "load": load,
            "outside": outside,
            "temp": outside + load * np.where(is_last, 0.75, 0.5) + noise.normal(0, 2.5, len(hours)),
        }
    )
    assert broken_columns(rows[~is_last], rows[is_last], ["load", "outside", "temp"]) == []
