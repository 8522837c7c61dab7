"""What follows from a dataset's frequency, and that it stands in the configuration that a run stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlplatform.calendars import make_calendar
from mlplatform.config import ConfigError, ExperimentConfig, StalenessConfig, explain_experiment, load_experiment
from mlplatform.config.derived import Lengths, fill_open
from mlplatform.settings import Settings
from mlplatform.testing.experiments import write_yaml


def based(folder: Path, frequency: str, **values: Any) -> ExperimentConfig:
    """Return an experiment in one file on `base/forecast`."""
    dataset = {
        "name": "plant",
        "source": {"uri": "plant.csv"},
        "time_column": "time",
        "entity_column": "line",
        "frequency": frequency,
        "columns": {"load": {}},
    }
    document = {"defaults": ["/base/forecast", "_self_"], "name": "plant_load", "dataset": dataset, "targets": ["load"]}
    write_yaml(folder / "conf", "experiment/plant_load", {**document, **values}, "# @package _global_\n")
    environ = {"MLPLATFORM_HOME": str(folder / "home"), "MLPLATFORM_CONF_DIR": str(folder / "conf")}
    return load_experiment("plant_load", settings=Settings.from_env(environ))


def lengths(config: ExperimentConfig) -> tuple[int | None, ...]:
    split = config.split
    return (config.season, config.lookback, config.horizon, split.reference_steps, split.cv.params["validation_steps"])


@pytest.mark.parametrize(
    ("frequency", "expected"),
    [
        ("1h", (24, 168, 24, 672, 672, 168, "1D")),
        ("15min", (96, 672, 96, 2688, 2688, 672, "1D")),
        ("30min", (48, 336, 48, 1344, 1344, 336, "1D")),
        ("1D", (7, 49, 7, 28, 28, 28, "3D")),
        ("1W", (52, 104, 52, 52, 52, 52, "21D")),
        ("B", (5, 35, 5, 20, 20, 20, "7D")),
        ("MS", (12, 36, 12, 12, 12, 12, "92D")),
        ("QE", (4, 12, 4, 4, 4, 4, "274D")),
        ("YS", (1, 12, 6, 6, 6, 6, "1096D")),
    ],
)
def test_lengths_follow_from_the_frequency(
    frequency: str, expected: tuple[int | str | None, ...], tmp_path: Path
) -> None:
    config = based(tmp_path, frequency)
    assert (*lengths(config), config.drift.recent_steps, config.staleness.max_age) == expected
    # Marked and not refused: data that end in the past stay usable, and nothing is held up.
    assert (config.staleness.action, config.staleness.refused_beyond) == ("flag", None)
    assert config.split.context_steps >= config.lookback
    # What a run stores says it all, and means the same without anything to derive from.
    assert ExperimentConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("frequency", "horizon", "max_age"),
    [("1h", None, "1D"), ("1h", 6, "6h"), ("1h", 1, "3h"), ("10min", 7, "70min"), ("1D", 28, "3D")],
)
def test_features_of_a_day_or_of_three_steps_are_not_stale(frequency: str, horizon: int | None, max_age: str) -> None:
    assert Lengths.of(make_calendar(frequency), horizon).max_age == max_age


@pytest.mark.parametrize(
    ("weekmask", "expected"),
    [
        ("1111110", (6, 42, 6, 24)),
        ("1111000", (4, 28, 4, 16)),
        ("1010100", (3, 9, 3, 3)),
        ("1111100", (5, 35, 5, 20)),
        (None, (5, 35, 5, 20)),
    ],
)
def test_lengths_of_working_days_are_those_of_their_week(weekmask: str | None, expected: tuple[int, ...]) -> None:
    """As `make_calendar` counts it, and not the week of five days that most have."""
    dataset = {"name": "shop", "frequency": "C", "weekmask": weekmask}
    values = {
        "task": "forecast",
        "dataset": {key: value for key, value in dataset.items() if value is not None},
        "lookback": None,
        "horizon": None,
        "baselines": [{"name": "seasonal_naive", "params": {"season": None}}],
        "features": {"calendar": {"fourier": [{"season": None, "terms": 1}]}},
        "split": {"reference_steps": None},
    }
    filled = fill_open(values)
    season = filled["baselines"][0]["params"]["season"]
    assert (season, filled["lookback"], filled["horizon"], filled["split"]["reference_steps"]) == expected
    assert filled["features"]["calendar"]["fourier"][0]["season"] == season


def test_a_weekmask_that_is_none_is_the_only_mistake(tmp_path: Path) -> None:
    dataset = {
        "name": "plant",
        "source": {"uri": "plant.csv"},
        "time_column": "time",
        "frequency": "C",
        "weekmask": "11",
        "columns": {"load": {}},
    }
    with pytest.raises(ConfigError, match="weekmask must be seven characters") as raised:
        based(tmp_path, "C", dataset=dataset)
    assert len(raised.value.mistakes) == 1


def test_a_short_reference_set_shortens_the_drift_window(tmp_path: Path) -> None:
    config = based(tmp_path, "1h", split={"reference_steps": 96, "cv": {"params": {"validation_steps": 96}}})
    assert config.drift.recent_steps == 96


def test_an_age_without_a_frequency_is_refused() -> None:
    with pytest.raises(ValueError, match="max_age is 'auto', which follows from the frequency of a forecast's dataset"):
        StalenessConfig(max_age="auto")


def test_what_is_derived_can_be_shown_and_written_down(tmp_path: Path) -> None:
    config = based(tmp_path, "MS", horizon=6)
    environ = {"MLPLATFORM_HOME": str(tmp_path / "home"), "MLPLATFORM_CONF_DIR": str(tmp_path / "conf")}
    shown = explain_experiment("plant_load", settings=Settings.from_env(environ))
    assert (shown["lookback"], shown["history"]) == (36, 120)
    assert shown["split"] == {
        "reference_steps": 12, "context_steps": 720, "cv": {"params": {"validation_steps": 12}},
    }  # fmt: skip
    assert "horizon" not in shown
    assert (shown["drift"], shown["staleness"]) == ({"recent_steps": 12}, {"max_age": "92D"})
    written = based(tmp_path, "MS", horizon=6, **shown)
    assert written == config
    assert explain_experiment("plant_load", settings=Settings.from_env(environ)) == {}


@pytest.mark.parametrize(
    ("frequency", "changes", "history"),
    [
        ("MS", {}, 120),
        ("QE", {}, 40),
        ("YS", {}, 24),
        ("1D", {}, None),
        ("1W", {}, None),
        ("MS", {"lookback": 12}, 120),
        ("MS", {"lookback": 120}, None),
        ("MS", {"history": 60}, 60),
        ("MS", {"preprocessing": {"scaling": "none"}}, None),
        ("MS", {"split": {"context_steps": 100}}, None),
    ],
)
def test_coarse_series_have_a_history_behind_the_lookback(
    frequency: str, changes: dict[str, Any], history: int | None, tmp_path: Path
) -> None:
    config = based(tmp_path, frequency, **changes)
    assert (config.history, config.reach) == (history, max(history or 0, config.lookback))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"history": 20}, "history 20 is shorter than lookback 36"),
        ({"history": 2000}, "history 2000 and 6 steps of preprocessing context exceed dataset.window_steps 720"),
    ],
)
def test_a_history_that_cannot_be_is_refused(changes: dict[str, Any], found: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=found):
        based(tmp_path, "MS", **changes)


def test_hourly_data_have_the_lengths_that_they_always_had(tmp_path: Path) -> None:
    config = based(tmp_path, "1h")
    assert (config.split.context_steps, config.dataset.window_steps) == (720, 720)


def test_many_series_are_judged_by_scaled_errors_and_one_by_its_own(tmp_path: Path) -> None:
    many = based(tmp_path, "1h")
    assert (many.metric, many.preprocessing.scaling) == ("mase", "window")
    one = fill_open({"task": "forecast", "metric": None, "dataset": {"frequency": "1h"}})
    assert one["metric"] == "mae"
    assert based(tmp_path, "1h", metric="rmse").metric == "rmse"


def test_a_frequency_that_is_yet_unknown_has_lengths_for_the_time_being(tmp_path: Path) -> None:
    assert based(tmp_path, "auto").lookback == 168


def test_minutes_keep_windows_of_two_days(tmp_path: Path) -> None:
    config = based(tmp_path, "1min")
    assert (config.season, config.lookback) == (1440, 2880)
    assert config.dataset.window_steps >= config.lookback


@pytest.mark.parametrize("frequency", ["1s", "5s", "15s"])
def test_seconds_have_no_season_of_a_day_of_them(frequency: str, tmp_path: Path) -> None:
    """Nobody trains, stores or sends windows of two days of seconds, or forecasts a whole one by them."""
    config = based(tmp_path, frequency)
    assert lengths(config) == (1, 600, 60, 3600, 3600)
    assert config.dataset.window_steps == 720
    assert lengths(based(tmp_path, "30s"))[0] == 2880
    assert lengths(based(tmp_path, frequency, horizon=900)) == (1, 1800, 900, 3600, 3600)


def test_what_is_given_stays(tmp_path: Path) -> None:
    given = {"horizon": 48, "lookback": 100, "baselines": [{"name": "seasonal_naive", "params": {"season": 12}}]}
    given["split"] = {"reference_steps": 96, "cv": {"params": {"validation_steps": 60}}}
    assert lengths(based(tmp_path, "1h", **given)) == (12, 100, 48, 96, 60)


def test_a_horizon_longer_than_the_block_stretches_it() -> None:
    assert Lengths.of(make_calendar("1D"), horizon=60).block == 60


@pytest.mark.parametrize("values", [{}, {"task": "forecast"}, {"task": "forecast", "dataset": {"frequency": "moon"}}])
def test_what_is_no_experiment_is_left_for_validation(values: dict[str, Any]) -> None:
    assert fill_open(values) == values


def test_a_frequency_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="frequency"):
        based(tmp_path, "moon")


@pytest.mark.parametrize(("frequency", "rows"), [("1h", 20), ("MS", 12), ("QE", 4)])
def test_a_decision_needs_no_more_rows_than_the_reference_set_has(frequency: str, rows: int, tmp_path: Path) -> None:
    assert based(tmp_path, frequency).promotion.min_reference_rows == rows
    asked = based(tmp_path, frequency, promotion={"min_reference_rows": 2})
    assert asked.promotion.min_reference_rows == 2


def features(**calendar: Any) -> dict[str, Any]:
    return {"version": "calendar_v1", "columns": None, "calendar": calendar}


@pytest.mark.parametrize(
    ("frequency", "parts"), [("15min", ("hour", "weekday")), ("B", ("weekday", "month")), ("ME", ("month",))]
)
def test_what_is_read_of_the_calendar_follows_from_the_frequency(
    frequency: str, parts: tuple[str, ...], tmp_path: Path
) -> None:
    auto = based(tmp_path, frequency, features={**features(), "calendar": "auto"}).features.calendar
    assert auto is not None
    assert (auto.parts, auto.fourier, auto.holidays) == (parts, (), ())
    more = features(fourier=[{"season": None, "terms": 1}], holidays=[{"country": "DE", "before": 1}])
    config = based(tmp_path, frequency, features=more)
    found = config.features.calendar
    assert found is not None
    assert found.parts == parts
    assert found.text == f"{' '.join(parts)} fourier={config.season}:1 holidays=DE::1:0"
    assert ExperimentConfig.model_validate(config.model_dump(mode="json")) == config
    chosen = based(tmp_path, frequency, features=features(parts=["business_day"])).features.calendar
    assert chosen is not None
    assert chosen.text == "business_day"


@pytest.mark.parametrize(
    ("calendar", "message"),
    [
        ({"holidays": [{"country": "Germany"}]}, r"holidays.*no holidays of country 'Germany'.*DE \(germany\)"),
        ({"holidays": [{"country": "DE", "subdivision": "Berlin"}]}, r"no subdivision 'Berlin'.*BE"),
        ({"parts": ["minute"]}, r"parts.*'hour'.*'business_day'"),
        ({"parts": ["hour", "hour"]}, "each may be named once"),
        ({"parts": []}, "it names nothing"),
        ({"fourier": [{"season": 7, "terms": 4}]}, "a season of 7 steps has 3 terms at most, but terms is 4"),
    ],
)
def test_what_the_calendar_cannot_say_is_refused(calendar: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        based(tmp_path, "1D", features=features(**calendar))


def test_a_family_that_does_not_read_the_calendar_says_which_do(tmp_path: Path) -> None:
    defaults = ["/base/forecast", {"override /model": "nlinear_v1"}, "_self_"]
    with pytest.raises(ConfigError, match=r"'nlinear' does not read calendar inputs.*families that do: .*xgboost"):
        based(tmp_path, "1D", features={**features(), "calendar": "auto"}, defaults=defaults)


def test_folds_are_others_only_where_the_calendar_is_read(tmp_path: Path) -> None:
    before = based(tmp_path, "1D")
    auto = based(tmp_path, "1D", features={**features(), "calendar": "auto", "version": before.features.version})
    values = before.model_dump(mode="json")
    # As earlier releases stored it.
    del values["features"]["calendar"]
    assert ExperimentConfig.model_validate(values).fold_digest() == before.fold_digest() != auto.fold_digest()
