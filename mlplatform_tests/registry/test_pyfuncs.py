"""The registered pyfuncs: the single forecaster, and the pair as two models in a row, answer with the same bits."""

from __future__ import annotations

import mlflow
import numpy as np
import pandas as pd
import pytest

from mlplatform.config import ENTITY, TIMESTAMP
from mlplatform.datamodule.panel import Panel
from mlplatform.registry.forecaster import Forecaster
from mlplatform_tests.registry.conftest import Register
from mlplatform_tests.yard import EXPERIMENT

HORIZON = 6


@pytest.fixture
def expected(forecaster: Forecaster, reference_rows: pd.DataFrame) -> np.ndarray:
    return forecaster.predict(Panel.from_frame(reference_rows, forecaster.contract.columns))


def test_the_forecaster_pyfunc_answers_a_table_with_the_same_bits(
    register: Register, reference_rows: pd.DataFrame, expected: np.ndarray
) -> None:
    register()
    model = mlflow.pyfunc.load_model(f"models:/{EXPERIMENT}_forecaster/1")
    answer = model.predict(reference_rows)
    assert list(answer.columns) == [ENTITY, TIMESTAMP, "top_oil_c"]
    values = answer["top_oil_c"].to_numpy().reshape(expected.shape)
    np.testing.assert_array_equal(values.view(np.uint32), expected.view(np.uint32))
    assert answer[ENTITY].tolist() == [1] * HORIZON + [2] * HORIZON
    last = reference_rows.groupby(ENTITY)[TIMESTAMP].max()
    for entity, rows in answer.groupby(ENTITY):
        ahead = pd.date_range(last[entity], periods=HORIZON + 1, freq="1h")[1:]
        assert rows[TIMESTAMP].tolist() == ahead.tolist()


def test_the_pair_s_pyfuncs_in_a_row_answer_with_the_same_bits(
    register: Register, forecaster: Forecaster, reference_rows: pd.DataFrame, expected: np.ndarray
) -> None:
    register()
    preprocessor, model = (
        mlflow.pyfunc.load_model(f"models:/{EXPERIMENT}_{role}@staging") for role in ("preprocessor", "model")
    )
    outputs = model.predict(preprocessor.predict(reference_rows))
    answer = forecaster.postprocess(outputs)
    np.testing.assert_array_equal(answer.view(np.uint32), expected.view(np.uint32))


def test_a_missing_column_is_named(register: Register, reference_rows: pd.DataFrame) -> None:
    register()
    model = mlflow.pyfunc.load_model(f"models:/{EXPERIMENT}_forecaster/1")
    with pytest.raises(ValueError, match="missing columns: load_pu"):
        model.predict(reference_rows.drop(columns="load_pu"))
