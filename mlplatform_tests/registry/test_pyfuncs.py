"""The registered pyfuncs: the single forecaster, and the pair as two models in a row, answer with the same bits."""

from __future__ import annotations

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from mlplatform.config import ENTITY, TIMESTAMP
from mlplatform.datamodule.panel import Panel
from mlplatform.registry.pairs import ROLES
from mlplatform.registry.pairs.example import example_rows
from mlplatform.registry.tracking import open_tracking
from mlplatform.testing.tiny_pair import COLUMNS, HORIZON, LOOKBACK, NAME, TinyRegistry, tiny_forecaster, tiny_rows


@pytest.fixture
def expected() -> np.ndarray:
    return tiny_forecaster().predict(Panel.from_frame(tiny_rows(), COLUMNS))


@pytest.fixture
def production(tiny: TinyRegistry) -> TinyRegistry:
    tiny.store.promote(NAME, 2, "test", "a test")
    open_tracking(tiny.settings)
    return tiny


@pytest.mark.usefixtures("production")
def test_the_forecaster_pyfunc_answers_a_table_with_the_same_bits(expected: np.ndarray) -> None:
    rows = tiny_rows()
    answer = mlflow.pyfunc.load_model(f"models:/{NAME}_forecaster@production").predict(rows)
    assert list(answer.columns) == [ENTITY, TIMESTAMP, "oil", "observed", "is_fallback"]
    assert answer.attrs["skipped"] == {}
    values = answer["oil"].to_numpy().reshape(expected.shape)
    np.testing.assert_array_equal(values.view(np.uint32), expected.view(np.uint32))
    assert answer[ENTITY].tolist() == [1] * HORIZON + [2] * HORIZON
    last = rows.groupby(ENTITY)[TIMESTAMP].max()
    for entity, found in answer.groupby(ENTITY):
        ahead = pd.date_range(last[entity], periods=HORIZON + 1, freq="1h")[1:]
        assert found[TIMESTAMP].tolist() == ahead.tolist()


@pytest.mark.usefixtures("production")
def test_the_pair_s_pyfuncs_in_a_row_answer_with_the_same_bits(expected: np.ndarray) -> None:
    preprocessor, model = (mlflow.pyfunc.load_model(f"models:/{NAME}_{role}@production") for role in ROLES[::2])
    outputs = model.predict(preprocessor.predict(tiny_rows()))
    answer = tiny_forecaster().postprocess(outputs)
    np.testing.assert_array_equal(answer.view(np.uint32), expected.view(np.uint32))


@pytest.mark.usefixtures("production")
def test_a_series_too_short_for_the_model_alone_is_named_instead_of_reading_its_neighbour() -> None:
    preprocessor, model = (mlflow.pyfunc.load_model(f"models:/{NAME}_{role}@production") for role in ROLES[::2])
    rows = tiny_rows()
    short = rows.drop(rows.index[rows[ENTITY] == 2][LOOKBACK - 1 :])
    with pytest.raises(ValueError, match=r"1 series have fewer than the 6 rows that a forecast needs: 2 \(5 rows\)"):
        model.predict(preprocessor.predict(short))


@pytest.mark.usefixtures("production")
def test_signature_and_input_example_are_stored_with_every_model() -> None:
    example = example_rows(tiny_forecaster().contract, tiny_rows())
    for role in ROLES:
        model = mlflow.pyfunc.load_model(f"models:/{NAME}_{role}@production")
        schema = model.metadata.get_input_schema()
        assert schema.input_names() == [ENTITY, TIMESTAMP, *COLUMNS]
        assert schema.required_input_names() == schema.input_names()
        stored = model.input_example
        assert len(stored) == len(example)
        assert list(stored.columns) == list(example.columns)
        assert model.metadata.get_output_schema() is not None


@pytest.mark.usefixtures("production")
def test_double_precision_and_time_zones_make_no_difference(expected: np.ndarray) -> None:
    rows = tiny_rows()
    rows = rows.assign(load=rows["load"].astype(float), oil=rows["oil"].astype(float))
    model = mlflow.pyfunc.load_model(f"models:/{NAME}_forecaster@production")
    for stamps in (rows[TIMESTAMP], rows[TIMESTAMP].dt.tz_localize(None), rows[TIMESTAMP].astype(str)):
        found = model.predict(rows.assign(**{TIMESTAMP: stamps}))["oil"].to_numpy().reshape(expected.shape)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("production")
def test_a_missing_column_is_named() -> None:
    model = mlflow.pyfunc.load_model(f"models:/{NAME}_forecaster@production")
    with pytest.raises(MlflowException, match=r"missing inputs.*load"):
        model.predict(tiny_rows().drop(columns="load"))
