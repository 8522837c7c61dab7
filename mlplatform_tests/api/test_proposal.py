"""From files as they come to experiments that the configuration takes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from holidays import country_holidays, financial_holidays

from mlplatform.api import propose
from mlplatform.calendars import CalendarError
from mlplatform.config import ConfigError, ExperimentConfig, load_experiment
from mlplatform.data import DataError, ingest, read_raw
from mlplatform.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "conf").mkdir()
    return Settings.from_env({"MLPLATFORM_HOME": str(tmp_path / "home"), "MLPLATFORM_CONF_DIR": str(tmp_path / "conf")})


def hours(count: int = 600, start: str = "2024-01-01") -> pd.DataFrame:
    times = pd.date_range(start, periods=count, freq="h")
    load = 50 + 20 * np.sin(np.arange(count) / 24 * 2 * np.pi)
    return pd.DataFrame({"time": times.strftime("%Y-%m-%d %H:%M"), "load": load.round(2), "temperature": load / 2})


def written(rows: pd.DataFrame, folder: Path, name: str = "plant.csv", **options: Any) -> Path:
    path = folder / name
    rows.to_csv(path, **{"index": False, **options})
    return path


def accepted(path: Path, settings: Settings, **options: Any) -> ExperimentConfig:
    """Propose, write, load, and read the file through the source: what a user does next."""
    proposal = propose(path, settings=settings, **options)
    assert proposal.mistakes == ()
    proposal.write(settings)
    config = load_experiment(proposal.name, settings=settings)
    report = ingest(config.dataset, settings)
    assert report.quarantined == 0
    return config


@pytest.mark.parametrize("offset", ["Z", "+00:00", "-0530", "+02"])
def test_times_that_say_their_offset_are_not_told_as_times_without_a_zone(
    tmp_path: Path, settings: Settings, offset: str
) -> None:
    rows = hours()
    path = written(rows.assign(time=rows["time"].str.replace(" ", "T") + offset), tmp_path)
    (note,) = (note for note in propose(path, settings=settings).notes if note.startswith("time is "))
    assert note.endswith("frequency h; it says its offset from UTC")


def test_dates_and_times_of_which_some_say_no_offset_are_told_as_of_utc(tmp_path: Path, settings: Settings) -> None:
    rows = hours()
    mixed = rows.assign(time=rows["time"].where(rows.index % 2 == 0, rows["time"] + "Z"))
    days = rows.assign(time=pd.date_range("2020-01-01", periods=len(rows)).strftime("%Y-%m-%d"))
    for each in (mixed, days):
        (note,) = (note for note in propose(written(each, tmp_path), settings=settings).notes if "time is " in note)
        assert note.endswith("without a zone they are times of UTC")


@pytest.mark.parametrize(("unit", "size"), [("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1)])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_times_that_are_counted_are_times(
    tmp_path: Path, settings: Settings, unit: str, size: int, suffix: str
) -> None:
    rows = pd.concat([hours().assign(line=line) for line in ("007", "7")])
    rows["time"] = pd.to_datetime(rows["time"], utc=True).dt.as_unit("ns").astype("int64") // size
    if suffix == "jsonl":
        path = tmp_path / "plant.jsonl"
        rows.to_json(path, orient="records", lines=True)
    else:
        path = written(rows, tmp_path)
    config = accepted(path, settings)
    dataset = config.dataset
    assert (dataset.time_column, dataset.time_unit, dataset.frequency) == ("time", unit, "h")
    assert (dataset.entity_column, config.targets) == ("line", ("temperature",))
    stored = read_raw(dataset, settings)
    assert stored["event_timestamp"].min() == pd.Timestamp(hours()["time"].min(), tz="UTC")
    found = f"its numbers are {unit} since 1970 UTC"
    assert any(note.endswith(found) for note in propose(path, settings=settings).notes)


def test_numbers_are_times_only_where_something_says_so(tmp_path: Path, settings: Settings) -> None:
    rows = hours()
    counts = pd.to_datetime(rows["time"], utc=True).dt.as_unit("ns").astype("int64") // 10**9
    # By their step, whatever the column is called.
    plain = rows.assign(time=counts).rename(columns={"time": "k"})
    assert accepted(written(plain, tmp_path), settings).dataset.time_unit == "s"
    # Beside written times, and of numbers that keep no step, a person has to say it.
    both = written(rows.assign(counter=counts), tmp_path, "both.csv")
    assert "time_unit" not in propose(both, settings=settings).yaml
    assert "time_column: counter\n  time_unit: s" in propose(both, time="counter", settings=settings).yaml
    ids = np.random.default_rng(0).integers(10**9, 2 * 10**9, len(rows))
    assert "kind: tabular" in propose(written(rows.assign(time=ids).rename(columns={"time": "id"}), tmp_path)).yaml


@pytest.mark.parametrize(
    ("spelled", "freq", "expected"), [("%Y%m%d", "D", "D"), ("%Y%m", "MS", "MS"), ("%Y%m%d", "W-MON", "W-MON")]
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "xlsx"])
@pytest.mark.parametrize("lines", [1, 2])
def test_whole_numbers_that_are_dates_are_times(
    tmp_path: Path, settings: Settings, spelled: str, freq: str, expected: str, suffix: str, lines: int
) -> None:
    times = pd.date_range("2003-01-06" if freq == "W-MON" else "2005-01-01", periods=200, freq=freq)
    load = np.random.default_rng(0).normal(10, 1, 200).round(3)
    parts = [pd.DataFrame({"k": times.strftime(spelled).astype(int), "line": f"l{n}", "y": load}) for n in range(lines)]
    rows, path = pd.concat(parts, ignore_index=True), tmp_path / f"plant.{suffix}"
    if suffix == "csv":
        rows.to_csv(path, index=False)
    elif suffix == "jsonl":
        rows.to_json(path, orient="records", lines=True)
    else:
        rows.to_excel(path, index=False)
    config = accepted(path, settings)
    assert (config.task, config.dataset.time_column, config.dataset.frequency) == ("forecast", "k", expected)
    stored = read_raw(config.dataset, settings)
    assert stored["event_timestamp"].iloc[: len(times)].tolist() == times.tz_localize("UTC").tolist()


def test_numbers_that_could_be_dates_by_chance_are_told(tmp_path: Path, settings: Settings) -> None:
    days = pd.date_range("1950-01-01", "2000-01-01").to_series().sample(300, random_state=1)
    born = pd.DataFrame({"born": days.dt.strftime("%Y%m%d").to_numpy(), "x": np.arange(300) % 7})
    born["y"] = np.arange(300) % 97 + 0.5
    proposal = propose(written(born, tmp_path), settings=settings)
    assert "kind: tabular" in proposal.yaml
    assert any("of 'born'" in note and "--time born" in note for note in proposal.notes)
    assert "time_column: born" in propose(tmp_path / "plant.csv", time="born", settings=settings).yaml
    months = born.assign(born=(190000 + np.arange(300)))
    assert not any("could be times" in note for note in propose(written(months, tmp_path), settings=settings).notes)


def test_the_hour_of_a_day_in_a_column_of_its_own_is_told(tmp_path: Path, settings: Settings) -> None:
    moments = pd.date_range("2024-01-01", periods=24 * 60, freq="h")
    load = np.arange(len(moments)) % 31 + 0.5
    rows = pd.DataFrame({"date": moments.strftime("%Y%m%d"), "n": moments.hour, "y": load})
    for each in (rows, rows.rename(columns={"n": "hour"})):
        told = [note for note in propose(written(each, tmp_path), settings=settings).notes if "hour of the day" in note]
        assert len(told) == 1
        assert "write both into one column" in told[0]
    assert not any("hour of the day" in note for note in propose(written(hours(), tmp_path), settings=settings).notes)


def test_a_column_that_is_blank_or_ends_early_is_not_what_is_predicted(tmp_path: Path, settings: Settings) -> None:
    rows = hours()
    ended = rows["load"].where(np.arange(len(rows)) < 0.8 * len(rows))
    rare = rows["load"].mask(rows.index % 3 > 0)
    for name, last in {"blank": "", "spaces": " ", "words": "NA", "ended": ended, "rare": rare}.items():
        proposal = propose(written(rows.assign(last=last), tmp_path, f"{name}.csv"), settings=settings)
        assert "targets: [temperature]" in proposal.yaml, name
    assert "targets: [last]" in propose(tmp_path / "ended.csv", targets=["last"], settings=settings).yaml
    # Of rows without times, order says nothing; and where nothing else is left, what there is.
    alone = written(rows[["time"]].assign(last=ended), tmp_path, "alone.csv")
    assert "targets: [last]" in propose(alone, settings=settings).yaml


def test_what_else_could_be_predicted_is_named(tmp_path: Path, settings: Settings) -> None:
    notes = propose(written(hours(), tmp_path), settings=settings).notes
    assert "to predict: temperature (forecast); `--target` chooses another: load" in notes
    alone = propose(written(hours()[["time", "load"]], tmp_path, "alone.csv"), settings=settings).notes
    assert "to predict: load (forecast); choose others with `--target`" in alone


def shops(ahead: int) -> pd.DataFrame:
    """Daily sales of four shops, and of so many days more what is planned."""
    parts = []
    for number in range(4):
        count = 400 + number
        steps = np.arange(count + ahead)
        rows = pd.DataFrame({"day": pd.date_range("2023-01-01", periods=len(steps)).strftime("%Y-%m-%d")})
        rows["shop"] = f"S{number}"
        rows["sold"] = np.where(steps < count, 20.0 + steps % 7, np.nan)
        rows["promotion"], rows["price"] = (steps % 11 == 0).astype(int), 10.0 + steps % 3
        parts.append(rows)
    return pd.concat(parts, ignore_index=True)


def test_what_goes_on_where_another_column_has_ended_is_known_ahead(tmp_path: Path, settings: Settings) -> None:
    path = written(shops(30), tmp_path)
    config = accepted(path, settings)
    assert config.targets == ("sold",)
    assert config.features.known_future == ("promotion", "price")
    assert (
        "known ahead, because they go on where 'sold' has ended: promotion, price"
        in propose(path, settings=settings).notes
    )
    other = propose(path, settings=settings, targets=["price"])
    assert "known_future" not in other.yaml


def test_a_delay_is_no_plan_but_tells_the_target(tmp_path: Path, settings: Settings) -> None:
    config = accepted(written(shops(1), tmp_path), settings)
    assert config.targets == ("sold",)
    assert config.features.known_future == ()


def test_a_column_that_was_given_up_has_not_ended(tmp_path: Path, settings: Settings) -> None:
    config = accepted(written(shops(60), tmp_path), settings)
    assert config.targets == ("price",)
    assert config.features.known_future == ()


def test_a_column_with_gaps_all_the_time_has_not_ended(tmp_path: Path, settings: Settings) -> None:
    rows = shops(0)
    rows.insert(2, "snow", np.where(np.arange(len(rows)) % 9 == 0, 1.5, np.nan))
    assert accepted(written(rows, tmp_path), settings).targets == ("price",)


def test_weeks_of_less_than_a_year_are_forecast_without_a_season(tmp_path: Path, settings: Settings) -> None:
    def weeks(count: int) -> Path:
        times = pd.date_range("2024-01-01", periods=count, freq="W-MON")
        return written(pd.DataFrame({"week": times.strftime("%Y-%m-%d"), "units": np.arange(float(count))}), tmp_path)

    def note(path: Path) -> str:
        return next(each for each in propose(path, settings=settings).notes if "too few" in each)

    path = weeks(44)
    assert "a season of 52 takes at least 57, so shorter ones without a season were written" in note(path)
    config = accepted(path, settings)
    assert (config.season, config.horizon, config.lookback, config.split.folds) == (1, 6, 8, 2)
    assert note(weeks(20)).endswith("nothing shorter fits either: at least 57")


def test_series_of_several_lines(tmp_path: Path, settings: Settings) -> None:
    rows = pd.concat([hours().assign(line=line, state="on") for line in ("A", "B")])
    config = accepted(written(rows, tmp_path), settings)
    assert (config.name, config.dataset.name) == ("plant_xgboost", "plant")
    assert (config.dataset.time_column, config.dataset.entity_column) == ("time", "line")
    assert config.dataset.frequency == "h"
    assert config.targets == ("temperature",)
    assert config.dataset.category_columns == ("state",)


def test_semicolons_decimal_commas_german_dates_and_ids_with_zeros(tmp_path: Path, settings: Settings) -> None:
    days = pd.date_range("2022-01-01", periods=800).strftime("%d.%m.%Y")
    rows = pd.concat(
        [
            pd.DataFrame({"Datum": days, "Filiale": shop, "Umsatz (€)": np.linspace(1.5, 99.5, 800)})
            for shop in ("007", "7")
        ]
    )
    path = written(rows, tmp_path, sep=";", decimal=",", encoding="cp1252")
    config = accepted(path, settings)
    assert config.dataset.source.options == {
        "delimiter": ";", "decimal": ",", "encoding": "cp1252", "time_format": "%d.%m.%Y",
    }  # fmt: skip
    assert config.dataset.frequency == "D"
    stored = propose(path, settings=settings)
    assert any("2 entities" in note for note in stored.notes)


def test_a_table_with_text_classes(tmp_path: Path, settings: Settings) -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"length": rng.normal(size=200), "colour": rng.choice(["red", "white"], 200)})
    rows["kind"] = np.where(rows["length"] > 0, "rosa", "lilium")
    config = accepted(written(rows, tmp_path, "flowers.csv"), settings)
    assert (config.task, config.metric, config.targets) == ("classification", "log_loss", ("kind",))


def test_a_table_with_a_number_to_predict(tmp_path: Path, settings: Settings) -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"rooms": rng.integers(1, 9, 200), "price": rng.normal(size=200)})
    config = accepted(written(rows, tmp_path, "houses.csv"), settings)
    assert (config.task, config.metric, config.targets) == ("regression", "rmse", ("price",))


def customers(count: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"age": rng.integers(18, 80, count), "region": rng.choice(["north", "south"], count)})
    return rows.assign(plan=np.where(rows["age"] > 40, "premium", "basic"))


@pytest.mark.parametrize("name", ["id", "customer_id", "customerId", "Kunden-ID", "UUID"])
def test_what_names_the_rows_of_a_table_is_no_input(name: str, tmp_path: Path, settings: Settings) -> None:
    # In any place, of any order, whole numbers or text.
    numbers = np.random.default_rng(1).permutation(5000)[:200]
    for place, ids in ((0, numbers), (2, [f"C{number}" for number in numbers])):
        rows = customers()
        rows.insert(place, name, ids)
        path = written(rows, tmp_path, f"customers_{place}.csv")
        config = accepted(path, settings)
        assert (config.dataset.entity_column, config.targets) == (name, ("plan",))
        assert set(config.dataset.columns) == {"age", "region", "plan"}
        assert f"rows are named by {name!r}, so it is no input" in propose(path, settings=settings).notes


def test_rows_that_are_counted_in_the_first_column_are_named_by_it(tmp_path: Path, settings: Settings) -> None:
    rows = customers()
    rows.insert(0, "no", np.arange(1001, 1201))
    assert accepted(written(rows, tmp_path, "counted.csv"), settings).dataset.entity_column == "no"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("area", np.random.default_rng(2).permutation(5000)[:200]),
        ("customer_id", np.arange(200) // 2),
        ("paid", np.arange(200) * 3 + 5),
        ("grid", np.arange(200) / 2),
    ],
)
def test_a_column_with_another_meaning_stays_an_input(
    name: str, values: np.ndarray, tmp_path: Path, settings: Settings
) -> None:
    rows = customers()
    rows.insert(0, name, values)
    config = accepted(written(rows, tmp_path, "customers.csv"), settings)
    assert config.dataset.entity_column is None
    assert name in config.dataset.columns


def test_marks_of_letters_are_left_out_of_a_name(tmp_path: Path, settings: Settings) -> None:
    assert (
        propose(written(hours(), tmp_path, "Umsätze Straße.csv"), settings=settings).name == "umsatze_strasse_xgboost"
    )


def test_named_columns_win(tmp_path: Path, settings: Settings) -> None:
    config = accepted(written(hours(), tmp_path), settings, targets=["load"], name="my_plant")
    assert (config.name, config.targets, config.dataset.entity_column) == ("my_plant", ("load",), None)


def test_nothing_is_overwritten_unasked(tmp_path: Path, settings: Settings) -> None:
    proposal = propose(written(hours(), tmp_path), settings=settings)
    path = proposal.write(settings)
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        proposal.write(settings)
    assert path.read_text() == "mine"
    proposal.write(settings, overwrite=True)
    assert path.read_text() == proposal.yaml


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04\x00\x00\x00", "cannot be unpacked"),
        (b"\x7fELF\x02\x00\x00\x00", "it is binary"),
        (b"time,load\n", "a header and no rows"),
        (b"a,b\n1,2,3\n4,5,6,7\n", "not a readable CSV"),
        (b"note\nsame\nsame\n", "no column that could be predicted"),
    ],
)
def test_what_is_no_csv_is_named(content: bytes, message: str, tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        propose(path, settings=settings)


def test_unknown_columns_and_impossible_names(tmp_path: Path, settings: Settings) -> None:
    path = written(hours(), tmp_path)
    with pytest.raises(DataError, match="no column 'pressure'; it has time, load, temperature"):
        propose(path, targets=["pressure"], settings=settings)
    with pytest.raises(ConfigError, match="cannot be a name"):
        propose(path, name="My Plant", settings=settings)
    with pytest.raises(DataError, match="does not hold times"):
        propose(path, time="load", settings=settings)
    with pytest.raises(DataError, match="is not a file"):
        propose(tmp_path / "nowhere.csv", settings=settings)


@pytest.mark.parametrize("day_first", [True, False])
def test_day_and_month_are_told_apart_where_the_file_shows_it(
    day_first: bool, tmp_path: Path, settings: Settings
) -> None:
    spelled = "%d/%m/%Y" if day_first else "%m/%d/%Y"
    days = pd.date_range("2023-01-01", periods=900)
    rows = pd.DataFrame({"date": days.strftime(spelled), "sales": np.arange(900.0)})
    proposal = propose(written(rows, tmp_path, "shop.csv"), settings=settings)
    assert f"time_format: '{spelled}'" in proposal.yaml
    assert "frequency: D" in proposal.yaml


def test_what_could_be_exchanged_is_said(tmp_path: Path, settings: Settings) -> None:
    days = ["01/02/2024", "02/02/2024", "03/02/2024", "04/02/2024"]
    rows = pd.DataFrame({"date": days, "sales": [1.0, 2.0, 3.0, 4.0]})
    proposal = propose(written(rows, tmp_path, "shop.csv"), settings=settings)
    assert any("could be exchanged" in note for note in proposal.notes)


@pytest.mark.parametrize(
    ("pandas_name", "frequency"),
    [("MS", "MS"), ("ME", "ME"), ("B", "B"), ("W-SAT", "W-SAT"), ("QS", "QS-JAN"), ("15min", "15min")],
)
def test_any_calendar_is_recognised(pandas_name: str, frequency: str, tmp_path: Path, settings: Settings) -> None:
    times = pd.date_range("1971-01-01", periods=200, freq=pandas_name)
    rows = pd.DataFrame({"date": times.strftime("%Y-%m-%d %H:%M"), "sales": np.arange(200.0)})
    path = written(rows, tmp_path, "shop.csv")
    assert accepted(path, settings).dataset.frequency == frequency
    notes = propose(path, settings=settings).notes
    assert any("`week_label: end`" in note for note in notes) is frequency.startswith("W-")


def working_days(holidays: Iterable[dt.date], start: str = "2021-01-04", end: str = "2024-06-28") -> pd.DataFrame:
    """Return rows of business days without holidays, in two shops of which the second opened later."""
    days = pd.date_range(start, end, freq="B")
    days = days[~days.isin(pd.DatetimeIndex(list(holidays)))]
    shops = [pd.DataFrame({"date": days[first:], "shop": shop}) for shop, first in (("a", 0), ("b", 200))]
    rows = pd.concat(shops, ignore_index=True)
    return rows.assign(date=rows["date"].dt.strftime("%Y-%m-%d"), sales=np.arange(float(len(rows))))


@pytest.mark.parametrize(
    ("source", "closed", "stays_open"),
    [
        (country_holidays("DE", years=range(2021, 2027)), "2026-12-25", "2026-07-03"),
        (country_holidays("US", years=range(2021, 2027)), "2026-07-03", "2026-04-03"),
        (financial_holidays("XNYS", years=range(2021, 2027)), "2026-04-03", "2026-11-11"),
    ],
    ids=["Germany", "United States", "New York Stock Exchange"],
)
def test_holidays_that_working_days_leave_out_are_left_out_of_the_days_to_come(
    source: Iterable[dt.date], closed: str, stays_open: str, tmp_path: Path, settings: Settings
) -> None:
    path = written(working_days(source), tmp_path, "shops.csv")
    config = accepted(path, settings)
    assert config.dataset.frequency == "C"
    days = {day.isoformat() for day in config.dataset.holidays}
    assert closed in days
    assert stays_open not in days
    assert max(days) <= "2026-12-31", "two years after the last row"
    assert any("weekdays without a row are holidays of" in note for note in propose(path, settings=settings).notes)


@pytest.mark.parametrize("holidays", ["", "DE"], ids=["none", "among those of Germany"])
def test_weekdays_that_are_missing_for_no_holiday_stay_gaps(holidays: str, tmp_path: Path, settings: Settings) -> None:
    closed = list(pd.date_range("2021-02-01", "2024-05-31", periods=40).date)
    closed += list(country_holidays(holidays, years=range(2021, 2025))) if holidays else []
    config = accepted(written(working_days(closed), tmp_path, "shops.csv"), settings)
    assert (config.dataset.frequency, config.dataset.holidays) == ("B", ())


@pytest.mark.parametrize(
    ("weekmask", "country", "frequency"),
    [
        ("1111110", "", "C"),
        ("1111110", "DE", "C"),
        ("1111000", "", "C"),
        ("1111001", "", "C"),
        ("1101100", "", "C"),
        ("1111100", "", "B"),
        ("1111111", "", "D"),
    ],
)
def test_weekdays_that_never_have_a_row_are_no_working_days(
    weekmask: str, country: str, frequency: str, tmp_path: Path, settings: Settings
) -> None:
    closed = list(country_holidays(country, years=range(2021, 2027))) if country else []
    days = pd.date_range("2022-01-03", periods=900)
    days = days[[weekmask[day] == "1" for day in days.dayofweek] & ~days.isin(pd.DatetimeIndex(closed))]
    rows = pd.DataFrame({"day": days.strftime("%Y-%m-%d"), "sold": np.arange(float(len(days)))})
    path = written(rows, tmp_path, "shop.csv")
    config = accepted(path, settings)
    assert config.dataset.frequency == frequency
    assert config.season == weekmask.count("1")
    assert (config.dataset.weekmask == weekmask) is (frequency != "D")
    assert {dt.date(2022, 12, 26)} <= set(config.dataset.holidays) if country else not config.dataset.holidays
    assert any("no row is of a " in note for note in propose(path, settings=settings).notes) is (frequency == "C")


def test_a_weekday_is_no_free_day_for_a_single_row_or_a_few_weeks(tmp_path: Path, settings: Settings) -> None:
    days = pd.date_range("2022-01-03", periods=200)
    six = days[(days.dayofweek < 6) | (days == "2022-05-15")]
    for some in (six, days[days.dayofweek < 6][:40], days[::3]):
        rows = pd.DataFrame({"day": some.strftime("%Y-%m-%d"), "sold": np.arange(float(len(some)))})
        assert "weekmask" not in propose(written(rows, tmp_path, "shop.csv"), settings=settings).yaml


@pytest.mark.parametrize("timezone", [None, "Asia/Kolkata"])
def test_working_days_are_those_of_the_zone_that_is_named(
    timezone: str | None, tmp_path: Path, settings: Settings
) -> None:
    days = pd.date_range("2022-01-03", periods=300)
    days = days[days.dayofweek < 6].tz_localize("Asia/Kolkata")
    rows = pd.DataFrame({"day": days.map(pd.Timestamp.isoformat), "sold": np.arange(float(len(days)))})
    config = accepted(written(rows, tmp_path, "shop.csv"), settings, timezone=timezone)
    # Midnight in India is the evening before in UTC.
    assert config.dataset.weekmask == ("1111110" if timezone else "1111101")


@pytest.mark.parametrize(
    ("file", "column"),
    [("plain.csv", "${oc.env:SECRET_OF_TEST}"), ("${oc.env:SECRET_OF_TEST}.csv", "load"), ("a${b.csv", r"x\${y")],
)
def test_what_a_file_is_called_reads_no_environment(
    file: str, column: str, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_TEST", "hunter2")
    path = written(hours().drop(columns="temperature").rename(columns={"load": column}), tmp_path, file)
    config = accepted(path, settings)
    assert (config.targets, config.dataset.source.uri) == ((column,), str(path))
    assert "hunter2" not in repr(config)


def test_a_zone_that_is_none_is_refused_before_the_file_is_looked_at(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(CalendarError, match="'Mars/Phobos'"):
        propose(tmp_path / "nowhere.csv", timezone="Mars/Phobos", settings=settings)


def test_a_packaged_name_is_not_taken(tmp_path: Path, settings: Settings) -> None:
    path = written(hours(), tmp_path, "fleet.csv")
    with pytest.raises(ConfigError, match="'fleet_xgboost' is a packaged experiment"):
        propose(path, settings=settings)
    assert accepted(path, settings, name="mine").dataset.name == "fleet_data"


def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, settings: Settings) -> None:
    rows = hours()
    twice = rows[["time", "load"]].assign(again=rows["load"]).set_axis(["time", "load", "load"], axis=1)
    path = written(twice, tmp_path)
    with pytest.raises(DataError, match="'load' is there twice"):
        propose(path, settings=settings)
    with pytest.raises(DataError, match="the column 'load' more than once, or not in every file; rename one"):
        propose(path, targets=["load"], settings=settings)
    with pytest.raises(DataError, match="is named twice; every row of it would count twice"):
        propose([path, path], settings=settings)


@pytest.mark.parametrize("written_as", ["{:.1f}%", "$1,{:05.1f}", "({:.2f})", "{:.2f} EUR"])
def test_numbers_with_a_sign_are_named(written_as: str, tmp_path: Path, settings: Settings) -> None:
    rows = hours().assign(rate=lambda rows: [written_as.format(value) for value in rows["load"]])
    notes = propose(written(rows, tmp_path), settings=settings).notes
    assert any("'rate' is text such as" in note and "without the sign" in note for note in notes)


def test_times_that_cannot_be_read_are_counted_and_make_no_series(tmp_path: Path, settings: Settings) -> None:
    rows = hours()
    rows.loc[rows.index[-20:], "time"] = [f"{day:02d}.02.2024 1:00" for day in range(1, 21)]
    proposal = propose(written(rows, tmp_path), settings=settings)
    assert "20 times cannot be read, such as '01.02.2024 1:00': these rows go to quarantine" in proposal.notes
    assert "entity_column" not in proposal.yaml


def test_a_first_row_of_data_is_not_taken_for_names_in_silence(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "plain.csv"
    hours().to_csv(path, index=False, header=False)
    notes = propose(path, settings=settings).notes
    assert any(
        note.startswith("the first row, taken for names, looks like data ('2024-01-01 00:00', ") for note in notes
    )


@pytest.mark.parametrize(("count", "is_enough"), [(1, False), (12, False), (60, True)])
def test_whether_a_file_has_enough_rows_is_known(
    count: int, is_enough: bool, tmp_path: Path, settings: Settings
) -> None:
    assert propose(written(hours(count), tmp_path), settings=settings).is_enough is is_enough


def test_a_workbook(tmp_path: Path, settings: Settings) -> None:
    rows = pd.concat([hours(60).assign(line=line) for line in ("007", "8")])
    rows["time"] = pd.to_datetime(rows["time"])
    path = tmp_path / "Plant 1.xlsx"
    with pd.ExcelWriter(path, engine="openpyxl") as book:
        rows[["time", "line", "load"]].to_excel(book, index=False, sheet_name="Daten")
        pd.DataFrame({"x": [1]}).to_excel(book, sheet_name="Notes")
    config = accepted(path, settings)
    assert config.dataset.source.options == {"sheet": "Daten"}
    assert (config.dataset.name, config.dataset.entity_column, config.dataset.frequency) == ("plant_1", "line", "h")


def test_json_lines(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "plant.jsonl"
    hours().to_json(path, orient="records", lines=True)
    config = accepted(path, settings)
    assert (config.dataset.time_column, config.targets) == ("time", ("temperature",))


@pytest.mark.parametrize("as_pattern", [True, False])
def test_several_compressed_files_of_one_table(as_pattern: bool, tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "plants").mkdir()
    paths = [
        written(hours(200, start), tmp_path / "plants", f"{start}.csv.gz", encoding="utf-16")
        for start in ("2024-01-01", "2024-02-01")
    ]
    proposal = propose(tmp_path / "plants" / "*.csv.gz" if as_pattern else paths, settings=settings)
    assert (proposal.name, proposal.mistakes) == ("plants_xgboost", ())
    proposal.write(settings)
    report = ingest(load_experiment(proposal.name, settings=settings).dataset, settings)
    assert (report.rows, report.quarantined) == (400, 0)


def test_numbers_in_groups_and_signs_for_nothing(tmp_path: Path, settings: Settings) -> None:
    load = [f"{number // 1000}.{number % 1000:03d},5" for number in range(1000, 61_000, 100)]
    rows = hours().assign(load=["-", *load[1:]])[["time", "load"]]
    config = accepted(written(rows, tmp_path, sep=";"), settings)
    assert config.dataset.source.options == {"delimiter": ";", "decimal": ",", "thousands": ".", "nulls": ["-"]}


def test_names_that_no_dataset_has_are_renamed(tmp_path: Path, settings: Settings) -> None:
    rows = hours().rename(columns={"load": "until", "temperature": " Temperatur\n(°C) "}).assign(Until=1.0)
    config = accepted(written(rows, tmp_path, index=True), settings, targets=[" Temperatur\n(°C) "])
    assert config.targets == ("Temperatur (°C)",)
    assert set(config.dataset.columns) == {"until_in_file", "Temperatur (°C)", "Until_in_file_2"}


@pytest.mark.parametrize(
    ("frequency", "rows", "horizon"), [("MS", 24, 1), ("MS", 60, 6), ("D", 60, 7), ("15min", 700, 96), ("YS", 12, 1)]
)
def test_a_short_history_gets_lengths_that_it_has_room_for(
    frequency: str, rows: int, horizon: int, tmp_path: Path, settings: Settings
) -> None:
    times = pd.date_range("1990-01-01", periods=rows, freq=frequency)
    frame = pd.DataFrame({"date": times.strftime("%Y-%m-%d %H:%M"), "sales": np.arange(float(rows))})
    config = accepted(written(frame, tmp_path, "shop.csv"), settings)
    split = config.split
    assert config.horizon == horizon
    assert config.season is not None
    assert config.lookback is not None
    assert config.lookback >= config.season
    assert split.reference_steps is not None
    assert config.promotion.min_reference_rows <= split.reference_steps
    assert (split.folds + 1) * split.reference_steps + config.lookback + config.horizon < rows


def test_months_without_a_row_are_steps_all_the_same(tmp_path: Path, settings: Settings) -> None:
    rows = pd.DataFrame({"month": pd.date_range("2010-01-01", periods=140, freq="MS"), "sold": np.arange(140.0)})
    some = rows.drop(index=np.random.default_rng(0).choice(np.arange(1, 139), 25, replace=False))
    proposal = propose(written(some, tmp_path, "shop.csv"), settings=settings)
    assert "lookback" not in proposal.yaml
    assert not any("too few" in note for note in proposal.notes)
    slip = pd.concat([rows.head(60), rows.tail(1).assign(month=pd.Timestamp("2222-01-01"))])
    notes = propose(written(slip, tmp_path, "shop.csv"), settings=settings).notes
    assert any(note.startswith("60 steps are 60 too few") for note in notes)


def months_of(shops: int, months: int) -> pd.DataFrame:
    """Return rows by shop and then by month."""
    times = pd.date_range("2010-01-01", periods=months, freq="MS").strftime("%Y-%m-%d")
    names = np.repeat([f"s{shop}" for shop in range(shops)], months)
    return pd.DataFrame({"month": np.tile(times, shops), "shop": names, "sold": np.arange(float(shops * months))})


def test_lengths_fit_the_series_that_were_seen_of_many(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlplatform.api.proposal.looking.ROWS", 2_000)
    whole = propose(written(months_of(30, 60), tmp_path, "shop.csv"), settings=settings)
    cut = propose(written(months_of(50, 60), tmp_path, "shop.csv"), settings=settings)
    by_time = propose(written(months_of(50, 60).sort_values("month"), tmp_path, "shop.csv"), settings=settings)
    assert "split: " in whole.yaml
    assert whole.yaml == cut.yaml.replace("# seen 0 to 1999", "# seen 0 to 1799")
    assert any(note.startswith("60 steps of the rows that were seen are 60 too few") for note in cut.notes)
    assert any(note.startswith("40 steps of the rows that were seen") for note in by_time.notes)
    # Of as many as a file of this order may have, no more than a few steps were seen.
    many = propose(written(months_of(400, 60).sort_values("month"), tmp_path, "shop.csv"), settings=settings)
    assert many.is_enough
    assert any("the rows behind them were not looked at" in note for note in many.notes)
    assert not propose(written(months_of(400, 6), tmp_path, "shop.csv"), settings=settings).is_enough


@pytest.mark.parametrize(("count", "is_shortened"), [(3_000, True), (30_000, False)])
def test_seconds_get_lengths_that_can_be_trained(
    count: int, is_shortened: bool, tmp_path: Path, settings: Settings
) -> None:
    times = pd.date_range("2024-01-01", periods=count, freq="s").strftime("%Y-%m-%d %H:%M:%S")
    config = accepted(written(pd.DataFrame({"time": times, "load": np.arange(count) % 61.0}), tmp_path), settings)
    assert (config.dataset.frequency, config.season, config.horizon) == ("s", 1, 60)
    assert config.lookback is not None
    assert config.lookback <= 600
    assert (config.split.reference_steps == 3600) is not is_shortened


def test_rows_of_a_plan_are_no_history(tmp_path: Path, settings: Settings) -> None:
    count, ahead = 205, 14
    rows = pd.DataFrame({"day": pd.date_range("2024-01-01", periods=count), "sold": np.arange(count) % 7 + 0.5})
    rows = rows.assign(promotion=np.arange(count) % 11 // 10)
    rows.loc[count - ahead :, "sold"] = np.nan
    path = written(rows, tmp_path, "shop.csv")
    config = accepted(path, settings)
    assert config.features.known_future == ("promotion",)
    assert config.lookback is not None
    assert config.split.reference_steps is not None
    spent = (config.split.folds + 1) * config.split.reference_steps + config.lookback + (config.horizon or 0)
    assert spent < count - ahead
    assert any(note.startswith("191 steps are 12 too few") for note in propose(path, settings=settings).notes)


def test_a_long_history_keeps_the_lengths_of_its_frequency(tmp_path: Path, settings: Settings) -> None:
    rows = pd.DataFrame({"date": pd.date_range("2010-01-01", periods=144, freq="MS"), "sales": np.arange(144.0)})
    proposal = propose(written(rows, tmp_path, "shop.csv"), settings=settings)
    assert "lookback" not in proposal.yaml
    few = propose(written(rows.head(9), tmp_path, "shop.csv"), settings=settings)
    assert any("nothing shorter fits either: at least 17" in note for note in few.notes)


def local_hours(zone: str, step: str = "h", until: str = "2023-12-31") -> pd.DataFrame:
    """Return rows as a clock on a wall would date them: one hour twice in the autumn, one missing in the spring."""
    times = pd.date_range("2022-02-01", until, freq=step, tz="UTC").tz_convert(zone)
    load = 50 + 20 * np.sin(np.arange(len(times)) / 24 * 2 * np.pi)
    work = (times.dayofweek < 5).astype(int)
    return pd.DataFrame({"time": times.strftime("%d.%m.%Y %H:%M"), "work": work, "load": load.round(2)})


@pytest.mark.parametrize(
    ("zone", "step"),
    [("Europe/Berlin", "h"), ("Europe/London", "15min"), ("Europe/Athens", "h"), ("Pacific/Auckland", "30min")],
)
def test_the_zone_of_local_times_is_told_by_hours_that_are_there_twice(
    tmp_path: Path, settings: Settings, zone: str, step: str
) -> None:
    path = written(local_hours(zone, step), tmp_path)
    config = accepted(path, settings)
    assert (config.dataset.timezone, config.dataset.entity_column) == (zone, None)
    stored = read_raw(config.dataset, settings)
    # Every row is there, an even step from the one before.
    assert stored.event_timestamp.diff().dropna().unique().tolist() == [pd.Timedelta(step if step != "h" else "1h")]
    assert any(f"clocks of {zone} are set back" in note for note in propose(path, settings=settings).notes)


def test_the_zone_of_many_series_is_told_by_them_together(tmp_path: Path, settings: Settings) -> None:
    rows = local_hours("Europe/Berlin", until="2023-01-31")
    rows = pd.concat([rows.assign(line="a"), rows.iloc[2000:].assign(line="b"), rows.iloc[-300:].assign(line="c")])
    config = accepted(written(rows, tmp_path), settings)
    assert (config.dataset.timezone, config.dataset.entity_column) == ("Europe/Berlin", "line")


def test_a_measurement_that_tells_repeated_hours_apart_is_no_series(tmp_path: Path, settings: Settings) -> None:
    rows = local_hours("Europe/Berlin", until="2023-01-31")
    # Whole numbers that repeat none of the hours, where the name of the series repeats one in each.
    both = pd.concat([rows.assign(line=line, watt=300 + np.arange(len(rows)) % 900) for line in ("a", "b")])
    config = accepted(written(both, tmp_path, "lines.csv"), settings)
    assert (config.dataset.timezone, config.dataset.entity_column) == ("Europe/Berlin", "line")


@pytest.mark.parametrize("slip", ["22.09.1677 05:00", "05.05.2261 01:00"])
def test_a_slip_of_the_pen_hides_no_zone(slip: str, tmp_path: Path, settings: Settings) -> None:
    rows = local_hours("Europe/Berlin", until="2023-01-31")
    slipped = pd.concat([rows, rows.tail(1).assign(**{rows.columns[0]: slip})])
    assert "timezone: Europe/Berlin" in propose(written(slipped, tmp_path), settings=settings).yaml


def test_zones_that_a_file_cannot_tell_apart_are_named(tmp_path: Path, settings: Settings) -> None:
    path = written(local_hours("America/Chicago"), tmp_path)
    proposal = propose(path, settings=settings)
    assert "timezone:" not in proposal.yaml
    (note,) = [note for note in proposal.notes if "--timezone" in note]
    assert "America/New_York, America/Chicago, America/Denver, America/Los_Angeles" in note
    assert accepted(path, settings, timezone="America/Chicago").dataset.timezone == "America/Chicago"


def test_times_that_are_there_twice_by_mistake_tell_no_zone(tmp_path: Path, settings: Settings) -> None:
    rows = hours(3000, "2022-09-01")
    copies = rows.iloc[[100, 2000]].assign(load=1.0)
    proposal = propose(written(pd.concat([rows, copies]).sort_values("time"), tmp_path), settings=settings)
    assert "timezone:" not in proposal.yaml
    assert any("times of UTC" in note for note in proposal.notes)


def test_local_times_are_those_of_the_zone_that_is_named(tmp_path: Path, settings: Settings) -> None:
    config = accepted(written(hours(), tmp_path), settings, timezone="Europe/Berlin")
    assert config.dataset.timezone == "Europe/Berlin"


@pytest.mark.parametrize(
    ("spelled", "frequency", "periods"),
    [("%m/%d/%Y %H:%M", "h", 100), ("%d/%m/%Y", "MS", 60), ("%d/%m/%Y %H:%M", "h", 80)],
)
def test_day_and_month_that_could_be_exchanged_are_read_with_the_fewest_gaps(
    settings: Settings, tmp_path: Path, spelled: str, frequency: str, periods: int
) -> None:
    times = pd.date_range("2024-01-01", periods=periods, freq=frequency)
    rows = pd.DataFrame({"when": times.strftime(spelled), "load": np.arange(periods) % 7 + 0.5})
    proposal = propose(written(rows, tmp_path), settings=settings)
    dataset = yaml.safe_load(proposal.yaml)["dataset"]
    assert (dataset["source"]["options"], dataset["frequency"]) == ({"time_format": spelled}, frequency)
    assert any("could be exchanged" in note for note in proposal.notes)


def test_a_file_with_nothing_to_predict_by_says_which_texts_were_no_times(settings: Settings, tmp_path: Path) -> None:
    weeks = [f"{year}-W{week:02d}" for year in (2022, 2023) for week in range(1, 53)]
    rows = pd.DataFrame({"week": weeks, "load": np.arange(104.0)})
    with pytest.raises(
        DataError, match=r"'load' to predict, nothing to predict it by.*'week' has texts such as '2022-W01'"
    ):
        propose(written(rows, tmp_path), settings=settings)
