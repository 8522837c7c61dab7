"""The registered forecaster on a batch: a bad series costs itself alone, and what was hardly measured shows."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import ENTITY, TIMESTAMP, StepConfig
from mlplatform.datamodule import Panel
from mlplatform.datamodule.samples import complete_origins
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.models.base import create_model
from mlplatform.preprocessing.manager import TransformManager
from mlplatform.registry.batch import answer_batch
from mlplatform.registry.fallback import FallbackPolicy, Reasons, complete
from mlplatform.registry.forecaster import Answers, Contract, Forecaster
from mlplatform.registry.observation import observed_shares
from mlplatform.registry.tables import input_panel
from mlplatform.testing.tiny_pair import COLUMNS, CONTEXT, HORIZON, LOOKBACK, tiny_forecaster, tiny_rows

NEEDED = LOOKBACK + CONTEXT


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return tiny_forecaster()


@pytest.fixture(scope="module")
def expected(forecaster: Forecaster) -> pd.DataFrame:
    return answer_batch(forecaster, tiny_rows())


def third(hours: int) -> pd.DataFrame:
    """Return the first rows of a third unit."""
    rows = tiny_rows(48)
    return rows[rows[ENTITY] == 1].head(hours).assign(**{ENTITY: np.int64(3)})


def test_rows_may_come_in_any_order(forecaster: Forecaster, expected: pd.DataFrame) -> None:
    shuffled = tiny_rows().sample(frac=1, random_state=3)
    found = answer_batch(forecaster, shuffled).sort_values([ENTITY, TIMESTAMP], ignore_index=True)
    pd.testing.assert_frame_equal(found, expected)
    mixed = tiny_rows().sort_values([TIMESTAMP, ENTITY])
    pd.testing.assert_frame_equal(answer_batch(forecaster, mixed), expected)


BROKEN = {
    "7 steps, but a forecast needs 8": lambda: third(NEEDED - 1),
    "two rows of one time": lambda: pd.concat([third(20), third(1)]),
    "a row without a time": lambda: third(20).assign(**{TIMESTAMP: lambda rows: rows[TIMESTAMP].mask(rows.index == 4)}),
    "times that are not whole steps of 1 hour apart": lambda: third(20).assign(
        **{TIMESTAMP: lambda rows: rows[TIMESTAMP].mask(rows.index == 4, pd.Timestamp("2026-01-01T04:20Z"))}
    ),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_bad_series_is_left_out_and_reported(
    forecaster: Forecaster, expected: pd.DataFrame, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = pd.concat([BROKEN[reason](), tiny_rows()])
    with caplog.at_level(logging.WARNING):
        found = answer_batch(forecaster, rows)
    assert found.attrs["skipped"] == {"3": reason}
    assert f"1 series are not answered: 3 ({reason})" in caplog.text
    pd.testing.assert_frame_equal(found, expected, check_flags=False)


def test_rows_without_an_id_are_left_out(forecaster: Forecaster, expected: pd.DataFrame) -> None:
    named = tiny_rows().assign(**{ENTITY: tiny_rows()[ENTITY].map({1: "a", 2: "b"})})
    nobody = third(20).assign(**{ENTITY: None})
    found = answer_batch(forecaster, pd.concat([named, nobody]))
    assert list(found.attrs["skipped"].values()) == ["a row without an entity id"]
    assert found["oil"].tolist() == expected["oil"].tolist()


def test_a_batch_of_bad_series_alone_says_what_is_wrong(forecaster: Forecaster) -> None:
    with pytest.raises(ValueError, match=r"no series can be answered: 3 \(5 steps, but a forecast needs 8\)"):
        answer_batch(forecaster, third(5))
    with pytest.raises(ValueError, match="missing columns: load"):
        answer_batch(forecaster, third(20).drop(columns="load"))


@pytest.mark.parametrize("is_filled", [False, True])
def test_a_series_with_a_number_that_preprocessing_has_none_for_is_left_out_and_named(is_filled: bool) -> None:
    """The logarithm of oil has none for values up to 0, and ridge reads no gaps; behind it a gap may be filled."""
    rows = tiny_rows()
    steps = [StepConfig(transform="impute", columns=("oil",)), StepConfig(transform="log", columns=("oil",))]
    panel = Panel.from_frame(rows, ("oil",))
    manager = TransformManager(steps[::-1] if is_filled else steps, {"oil": "float"}).fit(panel)
    contract = Contract("tiny", "forecast", "tiny", ("oil",), ("oil",), LOOKBACK, manager.context, HORIZON, 3600)
    model: Any = create_model("ridge", {}, ModelSpec("forecast", ("oil",), (0,), LOOKBACK, HORIZON, step_seconds=3600))
    pair = Forecaster(contract, manager, model)
    model.fit(pair.windows(manager.transform(panel), complete_origins(panel, ("oil",), LOOKBACK, HORIZON)), None)
    expected = answer_batch(pair, rows)
    last = rows.index[rows[ENTITY] == 2][-2]
    found = answer_batch(pair, rows.assign(oil=rows["oil"].mask(rows.index == last, -1.0)))
    if is_filled:
        assert found.attrs["skipped"] == {}
        assert np.isfinite(found["oil"]).all()
        return
    reason = "the pair's preprocessing has no number for a value of oil, and nothing fills it"
    assert found.attrs["skipped"] == {"2": reason}
    pd.testing.assert_frame_equal(found, expected[expected[ENTITY] == 1], check_flags=False)
    with pytest.raises(ValueError, match="no series can be answered: 2"):
        answer_batch(pair, rows.assign(oil=rows["oil"].mask(rows.index == last, -1.0)).query(f"{ENTITY} == 2"))


def test_a_step_without_a_row_is_a_gap(forecaster: Forecaster) -> None:
    rows = tiny_rows()
    hole = rows[TIMESTAMP] == pd.Timestamp("2026-01-02T22:00Z")
    blank = rows.assign(
        load=rows["load"].mask(hole),
        oil=rows["oil"].mask(hole),
        cooling=rows["cooling"].astype(object).mask(hole, None),
    )
    found = answer_batch(forecaster, rows[~hole])
    pd.testing.assert_frame_equal(found, answer_batch(forecaster, blank))
    assert found["observed"].iloc[0] == pytest.approx(5 / 6)


def hardly_measured() -> pd.DataFrame:
    """Return rows of which those of the first unit have one measured load in their lookback."""
    rows = tiny_rows()
    ahead = rows.groupby(ENTITY).cumcount(ascending=False)
    return rows.assign(load=rows["load"].mask((rows[ENTITY] == 1) & (ahead < LOOKBACK) & (ahead != 2)))


def test_answers_carry_the_share_that_was_measured(forecaster: Forecaster, expected: pd.DataFrame) -> None:
    assert list(expected.columns) == [ENTITY, TIMESTAMP, "oil", "observed", "is_fallback"]
    # The second unit has a gap in the fifth row from the end.
    assert expected["observed"].tolist() == [1.0] * HORIZON + [5 / 6] * HORIZON
    found = answer_batch(forecaster, hardly_measured())
    assert found["observed"].tolist() == [1 / 6] * HORIZON + [5 / 6] * HORIZON
    assert not found["is_fallback"].any()


def asking(forecaster: Forecaster, least: float, action: str = "refuse") -> Forecaster:
    contract = replace(forecaster.contract, min_observed=least, below_min_observed=action)
    return replace(forecaster, contract=contract)


def test_a_series_that_was_hardly_measured_is_refused(forecaster: Forecaster, expected: pd.DataFrame) -> None:
    found = answer_batch(asking(forecaster, 0.5), hardly_measured())
    assert found.attrs["skipped"] == {"1": "16.7% of the lookback was measured, and min_observed is 50.0%"}
    assert found["oil"].tolist() == expected["oil"].tolist()[HORIZON:]
    assert len(answer_batch(asking(forecaster, 1 / 6), hardly_measured())) == 2 * HORIZON


def test_or_falls_back_on_the_last_measured_value(forecaster: Forecaster, expected: pd.DataFrame) -> None:
    rows = hardly_measured()
    found = answer_batch(asking(forecaster, 0.5, "fallback"), rows)
    last = rows.loc[rows[ENTITY] == 1, "oil"].iloc[-1]
    assert found["oil"].tolist() == [last] * HORIZON + expected["oil"].tolist()[HORIZON:]
    assert found["is_fallback"].tolist() == [True] * HORIZON + [False] * HORIZON
    without = rows.assign(oil=rows["oil"].mask(rows[ENTITY] == 1))
    assert set(answer_batch(asking(forecaster, 0.5, "fallback"), without).attrs["skipped"]) == {"1"}


def test_what_stands_in_for_a_forecast_has_no_interval(forecaster: Forecaster) -> None:
    panel = input_panel(forecaster.contract, tiny_rows())
    point = np.ones((2, HORIZON, 1), np.float32)
    answers = Answers(point, point - 1, point + 1, 0.8)
    reasons: Reasons = (None, "too_little_observed")
    found = complete(panel, forecaster.contract, FallbackPolicy(), reasons, lambda _: answers).answers
    assert found.lower is not None
    assert np.isnan(found.lower).all(axis=(1, 2)).tolist() == [False, True]
    assert (found.point[0] == 1).all()


def test_a_contract_without_a_policy_is_stored_as_it_always_was(forecaster: Forecaster) -> None:
    assert "min_observed" not in json.loads(forecaster.contract.to_json())
    contract = asking(forecaster, 0.5, "fallback").contract
    assert Contract.from_json(contract.to_json()) == contract


def test_a_past_shorter_than_the_lookback_counts_as_unmeasured(forecaster: Forecaster) -> None:
    panel = input_panel(forecaster.contract, third(3))
    assert observed_shares(panel, forecaster.contract).tolist() == [0.5]
    assert set(panel.columns) == set(COLUMNS)


def test_a_short_series_is_answered_or_left_out_as_its_pair_says(
    forecaster: Forecaster, expected: pd.DataFrame
) -> None:
    rows = pd.concat([tiny_rows(), third(3)])
    kept = dict(zip(expected[ENTITY], expected.groupby(ENTITY).ngroup(), strict=True))
    for short, is_answered in (("", False), ("refuse", False), ("skip", False), ("model", True), ("naive", True)):
        contract = replace(forecaster.contract, short=short, season=2)
        assert Contract.from_json(contract.to_json()) == (contract if short == "naive" else replace(contract, season=1))
        found = answer_batch(replace(forecaster, contract=contract), rows)
        assert set(found[ENTITY]) == set(kept) | ({3} if is_answered else set())
        assert ("3" in found.attrs["skipped"]) != is_answered
        # The others have the answers that they have alone.
        others = found[found[ENTITY] != 3].reset_index(drop=True)
        pd.testing.assert_frame_equal(others, expected, check_like=True)
        if is_answered:
            assert (found.loc[found[ENTITY] == 3, "is_fallback"] == (short == "naive")).all()
            assert np.isfinite(
                found.loc[found[ENTITY] == 3].select_dtypes("float").drop(columns="observed").iloc[:, 0]
            ).all()
