"""A pair at work: what it refuses, and what it answers for rows it was not trained to see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import ENTITY, TIMESTAMP, load_experiment
from mlplatform.datamodule.panel import Panel
from mlplatform.preprocessing.manager import TransformManager
from mlplatform.registry.forecaster import Answers, Contract, Forecaster
from mlplatform.registry.tables import input_panel, prepared_table


def test_a_contract_survives_json(forecaster: Forecaster) -> None:
    contract = forecaster.contract
    assert Contract.from_json(contract.to_json()) == contract
    assert (contract.lookback, contract.context, contract.horizon, contract.input_rows) == (24, 6, 6, 30)
    assert contract.step_seconds == 3600


def test_answers_and_bounds_are_cut_to_the_limits_that_the_contract_carries(
    forecaster: Forecaster, reference_rows: pd.DataFrame
) -> None:
    panel = Panel.from_frame(reference_rows, forecaster.contract.columns)
    free = replace(forecaster, contract=replace(forecaster.contract, limits=()))
    values = free.predict(panel)
    high = float(np.float32(np.median(values)))
    contract = replace(forecaster.contract, limits=((None, high),))
    assert Contract.from_json(contract.to_json()) == contract
    assert "limits" not in free.contract.to_json()  # so that the digests of earlier pairs stay theirs
    cut = replace(forecaster, contract=contract)
    np.testing.assert_array_equal(cut.predict(panel), np.minimum(values, np.float32(high)))
    answers = cut.postprocess_answers(Answers(*(free.infer(free.preprocess(panel)) for _ in range(3)), 0.8))
    assert [side.max() for side in answers[:3] if side is not None] == [np.float32(high)] * 3


def test_limits_are_those_of_the_target_s_column(forecaster: Forecaster) -> None:
    contract = Contract.for_experiment(load_experiment("fleet_xgboost"), forecaster.preprocessor)
    assert (contract.targets, contract.limits) == (("top_oil_c",), ((-50.0, 300.0),))


def test_a_forecast_depends_on_the_newest_rows_only(forecaster: Forecaster, reference_rows: pd.DataFrame) -> None:
    columns = forecaster.contract.columns
    whole = forecaster.predict(Panel.from_frame(reference_rows, columns))
    newest = reference_rows.groupby(ENTITY).tail(forecaster.contract.input_rows)
    answer = forecaster.predict(Panel.from_frame(newest, columns))
    np.testing.assert_array_equal(answer.view(np.uint32), whole.view(np.uint32))


def test_an_entity_with_too_few_rows_is_named(forecaster: Forecaster, reference_rows: pd.DataFrame) -> None:
    short = reference_rows.drop(reference_rows.index[reference_rows[ENTITY] == 2][29:])
    with pytest.raises(ValueError, match=r"entity 2 has 29 rows, but a forecast needs 30 \(24 of lookback and 6"):
        forecaster.predict(Panel.from_frame(short, forecaster.contract.columns))


def test_tabular_rows_without_a_time_are_given_none() -> None:
    contract = Contract("e", "regression", "d", ("width",), ("weight",))
    rows = pd.DataFrame({"width": [1.0, 2.0]}, index=[7, 3])
    manager = TransformManager([], {"width": "float"})
    prepared = prepared_table(contract, manager, rows)
    assert prepared[TIMESTAMP].isna().all()
    assert prepared[ENTITY].tolist() == [0, 1]
    assert np.isnat(input_panel(contract, prepared).timestamps).all()
    assert input_panel(contract, prepared).columns["width"].tolist() == [1.0, 2.0]


def test_missing_columns_are_named(forecaster: Forecaster, reference_rows: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="missing columns: cooling; expected: load_pu"):
        forecaster.predict(Panel.from_frame(reference_rows, forecaster.contract.columns[:-1]))
