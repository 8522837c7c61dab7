"""Rows before the beginning of series, and samples that look at a history which not all series have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlplatform.calendars import make_calendar
from mlplatform.config import ENTITY, TIMESTAMP, ConfigError
from mlplatform.datamodule import create_data_module, padded
from mlplatform.testing.experiments import prepare_folds, pump_config, pump_frame, pump_settings


def rows() -> pd.DataFrame:
    """Return two series of months, of different length."""
    parts = []
    for name, months in (("a", 3), ("b", 5)):
        times = pd.date_range(end="2024-05-01", periods=months, freq="MS", tz="UTC", unit="ns")
        parts.append(
            pd.DataFrame(
                {
                    ENTITY: name,
                    TIMESTAMP: times,
                    "y": np.arange(months, dtype=np.int64),
                    "kind": "x",
                    "site": name.upper(),
                    "is_context": False,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def test_every_series_gets_rows_without_values_on_its_own_grid() -> None:
    found = padded(rows(), make_calendar("MS"), 2, kept=("site",))
    assert found[ENTITY].tolist() == ["a"] * 5 + ["b"] * 7
    a = found[found[ENTITY] == "a"]
    assert a[TIMESTAMP].dt.strftime("%Y-%m").tolist() == ["2024-01", "2024-02", "2024-03", "2024-04", "2024-05"]
    assert a["y"].isna().tolist() == [True, True, False, False, False]
    assert a["kind"].tolist() == [None, None, "x", "x", "x"]
    assert a["site"].tolist() == ["A"] * 5
    assert a["is_context"].tolist() == [True, True, False, False, False]
    kept = found[~found["is_context"].astype(bool)].drop(columns="is_context").reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, rows().drop(columns="is_context"), check_dtype=False)


@pytest.mark.parametrize("count", [0, 4])
def test_nothing_is_added_where_nothing_is_asked_for(count: int) -> None:
    empty = rows().iloc[:0]
    assert padded(empty, make_calendar("MS"), count) is empty
    assert padded(rows(), make_calendar("MS"), 0).equals(rows())


def test_a_history_leaves_samples_truths_folds_and_other_families_as_they_are(tmp_path: Path) -> None:
    settings = pump_settings(tmp_path)
    room = ("preprocessing.scaling=window", "dataset.window_steps=80", "split.context_steps=80")
    config = pump_config(settings, *room)
    longer = pump_config(settings, *room, f"history={config.lookback + 30}")
    modules = [create_data_module(each, pump_frame()) for each in (config, longer)]
    plain, reaching = modules
    assert reaching.padding == 30
    assert len(plain.rows) == len(reaching.rows)
    for own in ("timestamps", "row_entities"):
        first, second = (getattr(each.panel, own)[each.rows] for each in modules)
        np.testing.assert_array_equal(first, second)
    folds = [prepare_folds(each) for each in modules]
    for first, second in zip(*folds, strict=True):
        np.testing.assert_array_equal(first.train.inputs(), second.train.inputs())
        np.testing.assert_array_equal(first.validation.outputs(), second.validation.outputs())
        np.testing.assert_array_equal(first.validation.origin_times, second.validation.origin_times)
    young = pump_frame().groupby(ENTITY).tail(config.lookback + config.horizon - 1).reset_index(drop=True)
    left_out = create_data_module(longer, young).left_out
    assert left_out == dict.fromkeys(("1", "2"), config.lookback + config.horizon - 1)


def test_folds_of_another_history_are_other_folds(tmp_path: Path) -> None:
    config = pump_config(pump_settings(tmp_path))
    longer = config.model_copy(update={"history": config.lookback + 3})
    assert config.fold_digest() != longer.fold_digest()


def test_nothing_is_fitted_on_what_was_added(tmp_path: Path) -> None:
    config = pump_config(pump_settings(tmp_path))
    states = []
    for each in (config, config.model_copy(update={"history": config.lookback + 30})):
        (fold, *_) = prepare_folds(create_data_module(each, pump_frame()))
        (folder := tmp_path / f"state_{each.history}").mkdir()
        fold.manager.save(folder)
        states.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert states[0] == states[1]


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (["history=3"], "history 3 is shorter than lookback"),
        (["history=40"], "may be missing in part, which preprocessing.scaling 'none' fills with constants"),
        (["history=4000", "preprocessing.scaling=window"], "history 4000 and 2 steps of preprocessing context exceed"),
    ],
)
def test_a_history_that_cannot_be_is_refused(overrides: list[str], found: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=found):
        pump_config(pump_settings(tmp_path), *overrides)
