"""A column that is the target in disguise is named; one that honestly helps is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import parse_experiment
from mlplatform.datamodule.factory import create_data_module
from mlplatform.training.too_good import TooGood, find_too_good

HOURS = 900
Series = "pd.Series[Any]"


def series(unit: int) -> pd.DataFrame:
    """Return a target that is partly persistent, daily, and driven by the weather, and partly chance."""
    noise = np.random.default_rng(unit)
    steps = np.arange(HOURS)
    weather = np.convolve(noise.normal(size=HOURS + 5), np.ones(6) / 6, "valid") * 4
    own = np.zeros(HOURS)
    for step in range(1, HOURS):
        own[step] = 0.8 * own[step - 1] + noise.normal()
    heat = 20 + 3 * np.sin(2 * np.pi * steps / 24) + weather + own
    return pd.DataFrame(
        {
            "entity_id": unit,
            "event_timestamp": pd.date_range("2024-01-01", periods=HOURS, freq="1h", tz="UTC", unit="ns"),
            "heat": heat.astype(np.float32),
            "weather": weather.astype(np.float32),
        }
    )


def forecast_of(
    column: Callable[[Series], Series],
    *,
    known: bool,
    horizon: int = 6,
    lookback: int = 48,
    is_text: bool = False,
    levels: tuple[float, float] = (1, 1),
) -> list[TooGood]:
    """Return what is found where `column` makes the column `plan` from the target."""
    frame = pd.concat(series(unit) for unit in (1, 2)).reset_index(drop=True)
    frame["heat"] *= np.where(frame["entity_id"] == 1, *levels)
    frame["plan"] = frame.groupby("entity_id")["heat"].transform(column).astype(np.float32)
    if is_text:
        frame["plan"] = frame["plan"].map("{:.1f}".format).astype(object)
    config = parse_experiment(
        {
            "name": "boiler",
            "task": "forecast",
            "targets": ["heat"],
            "lookback": lookback,
            "horizon": horizon,
            "metric": "mae",
            "dataset": {
                "name": "boilers",
                "source": {"uri": "boilers.csv"},
                "time_column": "time",
                "entity_column": "unit",
                "frequency": "1h",
                "columns": {"heat": {}, "weather": {}, "plan": {"type": "category"} if is_text else {}},
            },
            "features": {
                "version": "f1",
                "columns": ["heat", "weather", "plan"],
                "known_future": ["weather", *(["plan"] if known else [])],
            },
            "split": {
                "version": "v1",
                "reference_steps": 100,
                "context_steps": lookback,
                "cv": {"name": "expanding", "params": {"validation_steps": 100}},
                "folds": 1,
            },
            "model": {"version": "m1", "family": "xgboost"},
            "baselines": [{"name": "repeat_last"}],
            "preprocessing": {"steps": []},
            "tuning": {"trials": 1},
            "promotion": {},
            "drift": {},
        }
    )
    return find_too_good(create_data_module(config, frame))


def centred_mean(values: Series) -> Series:
    return values.rolling(7, center=True, min_periods=7).mean()


def noise_like(values: Series) -> Series:
    return pd.Series(np.random.default_rng(9).normal(0, float(values.std()) * 0.3, len(values)), values.index)


class TestForecasts:
    @pytest.mark.parametrize(
        "disguise",
        [
            lambda values: values,
            lambda values: 5 - values * 1.8,
            lambda values: values.shift(-1),
            lambda values: values.shift(-3),
            lambda values: values.shift(2),
            centred_mean,
            lambda values: values.rolling(24, min_periods=24).mean(),
        ],
        ids=["copy", "copy in other units", "lead", "lead of three", "what was two before", "centred mean", "mean"],
    )
    def test_a_known_future_column_that_is_the_target_is_named(self, disguise: Callable[[Series], Series]) -> None:
        (found,) = forecast_of(disguise, known=True)
        assert (found.column, found.target) == ("plan", "heat")
        assert found.share > 0.999
        assert found.evidence.startswith("column 'plan' settles ")
        assert "it is known beforehand, and its correlation with 'heat' of the same time is " in found.evidence

    @pytest.mark.parametrize(
        "disguise",
        [lambda values: values.shift(-1), lambda values: values.shift(-5), centred_mean],
        ids=["lead", "lead of five", "centred mean"],
    )
    def test_a_column_of_the_past_that_knows_the_future_is_named(self, disguise: Callable[[Series], Series]) -> None:
        (found,) = forecast_of(disguise, known=False)
        assert found.column == "plan"
        assert "leaves open 1 step ahead, on " in found.evidence

    @pytest.mark.parametrize(
        "disguise",
        [
            lambda values: np.log(values - values.min() + 1),
            lambda values: values**2,
            lambda values: (values - values.mean()) / values.std(),
            lambda values: np.log(values - values.min() + 1).shift(-2),
        ],
        ids=["logarithm", "square", "in units of its entity", "lead of a logarithm"],
    )
    def test_another_form_of_the_target_is_named(self, disguise: Callable[[Series], Series]) -> None:
        (found,) = forecast_of(disguise, known=True, levels=(1, 30))
        assert found.column == "plan"

    def test_a_lead_that_only_the_start_of_the_lookback_has_is_named(self) -> None:
        (found,) = forecast_of(lambda values: values.shift(-96), known=False, lookback=100)
        assert found.column == "plan"

    @pytest.mark.parametrize("known", [True, False])
    def test_a_lead_as_text_is_named(self, known: bool) -> None:
        (found,) = forecast_of(lambda values: values.shift(-1), known=known, is_text=True)
        assert found.column == "plan"

    def test_a_lead_beyond_the_lookback_is_found_where_it_tells(self) -> None:
        (found,) = forecast_of(lambda values: values.shift(-60), known=False, horizon=96)
        assert "leaves open 49 steps ahead" in found.evidence

    @pytest.mark.parametrize("known", [True, False])
    @pytest.mark.parametrize(
        "honest",
        [
            noise_like,
            lambda values: values + noise_like(values),
            lambda values: values.rolling(24, min_periods=24).mean().shift(6),
        ],
        ids=["noise", "a good but noisy forecast", "a mean that is six steps old"],
    )
    def test_honest_columns_pass(self, honest: Callable[[Series], Series], known: bool) -> None:
        assert forecast_of(honest, known=known) == []

    def test_the_target_as_text_is_named_and_honest_categories_pass(self) -> None:
        (found,) = forecast_of(lambda values: values, known=True, is_text=True)
        assert found.column == "plan"
        for honest in (noise_like, lambda values: values * 0 + np.arange(len(values)) % 24):
            assert forecast_of(honest, known=True, is_text=True) == []
        # A category that stands once says nothing, or every number of a row would be found.
        assert forecast_of(lambda values: values * 0 + np.arange(len(values)), known=True, is_text=True) == []

    def test_the_past_itself_as_a_column_passes(self) -> None:
        assert forecast_of(lambda values: values, known=False) == []
        assert forecast_of(lambda values: values.rolling(24, min_periods=24).mean(), known=False) == []

    def test_too_few_rows_and_constant_columns_give_no_finding(self) -> None:
        assert forecast_of(lambda values: values * np.nan, known=True) == []
        assert forecast_of(lambda values: values * 0 + 1, known=True) == []


def table_of(task: str, columns: dict[str, Any], target: Any) -> list[TooGood]:
    kinds = {
        name: {"type": "category" if np.asarray(values).dtype == object else "float"}
        for name, values in columns.items()
    }
    wanted = {"type": "category" if task == "classification" else "float"}
    config = parse_experiment(
        {
            "name": "sick",
            "task": task,
            "targets": ["answer"],
            "metric": "log_loss" if task == "classification" else "mae",
            "dataset": {
                "name": "visits",
                "kind": "tabular",
                "source": {"uri": "visits.csv"},
                "columns": {**kinds, "answer": wanted},
            },
            "features": {"version": "f1", "columns": list(columns)},
            "split": {"version": "v1", "reference_fraction": 0.2, "cv": {"name": "kfold"}, "folds": 2},
            "model": {"version": "m1", "family": "dummy"},
            "baselines": [{"name": "dummy"}],
            "preprocessing": {"steps": []},
            "tuning": {"trials": 1},
            "promotion": {},
            "drift": {},
        }
    )
    frame = pd.DataFrame({**columns, "answer": target})
    moment = pd.Timestamp("2000-01-01", tz="UTC")
    return find_too_good(
        create_data_module(config, frame.assign(entity_id=np.arange(len(frame)), event_timestamp=moment))
    )


class TestTables:
    noise = np.random.default_rng(3)
    number = noise.normal(size=600).astype(np.float32)
    helpful = (number + noise.normal(0, 0.5, 600)).astype(np.float32)
    label = np.where(number > 0.8, "ill", "well").astype(object)

    def test_a_number_that_is_the_target_is_named_in_any_form(self) -> None:
        columns = {"copy": self.number, "in_other_units": np.exp(self.number * 0.7), "helpful": self.helpful}
        found = table_of("regression", columns, self.number)
        assert [each.column for each in found] == ["copy", "in_other_units"]
        assert found[0].evidence.startswith("column 'copy' alone tells 'answer': R² ")

    @pytest.mark.parametrize("rows", [120, 600])
    @pytest.mark.parametrize(
        "target",
        [
            lambda number: number,
            lambda number: np.exp(2 * number),
            lambda number: np.where(number < 0.5, 0, np.exp(number)),
        ],
        ids=["even", "heavy tail", "mostly zero"],
    )
    def test_neither_few_rows_nor_extremes_hide_a_copy(self, target: Callable[[Any], Any], rows: int) -> None:
        answer = target(self.number[:rows]).astype(np.float32)
        text = np.asarray([f"{value:.3f}" for value in answer], dtype=object)
        is_zero = (answer == 0).astype(np.float32)
        columns = {"copy": answer * 2, "text": text, "is_zero": is_zero, "helpful": self.helpful[:rows]}
        assert [each.column for each in table_of("regression", columns, answer)] == ["copy", "text"]

    def test_a_column_that_is_the_class_is_named(self) -> None:
        renamed = np.where(self.label == "ill", "J", "N").astype(object)
        columns = {"code": renamed, "score": (self.label == "ill").astype(np.float32), "helpful": self.helpful}
        found = table_of("classification", columns, self.label)
        assert [each.column for each in found] == ["code", "score"]

    def test_ids_and_honest_columns_pass(self) -> None:
        ids = np.asarray([f"visit {row}" for row in range(600)], dtype=object)
        columns = {"visit": ids, "helpful": self.helpful}
        assert table_of("classification", columns, self.label) == []
        assert table_of("regression", columns, self.number) == []

    def test_copies_of_rows_do_not_make_a_column_too_good(self) -> None:
        rows = np.tile(np.arange(60), 10)
        unrelated = self.noise.normal(size=60).astype(np.float32)[rows]
        assert table_of("regression", {"unrelated": unrelated}, self.number[rows]) == []
