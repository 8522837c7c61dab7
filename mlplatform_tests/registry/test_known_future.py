"""A pair that reads columns known beforehand: what it needs, what it may look at, and that serving equals training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import ENTITY, FeaturesConfig
from mlplatform.datamodule.splits import read_part
from mlplatform.features.retrieval import load_history
from mlplatform.models.base import load_model, save_model
from mlplatform.models.calibration import Calibration
from mlplatform.promotion.parity import check_parity
from mlplatform.registry.forecaster import Forecaster
from mlplatform.registry.pairs.example import differences, example_rows
from mlplatform.registry.tables import answer_table, input_panel
from mlplatform.testing.yard import FEATURES, Yard
from mlplatform_tests.fixtures.pairs import fit_forecaster

KNOWN = ("ambient_c", "cooling")
HORIZON = 6


@pytest.fixture(scope="module")
def knowing(trained_yard: Yard) -> Forecaster:
    features = FeaturesConfig(version="yard", columns=tuple(FEATURES), known_future=KNOWN)
    forecaster = fit_forecaster(trained_yard, 15, overrides={"features": features})
    forecaster.model.calibration = Calibration(0.8, np.full((HORIZON, 1), 0.7, np.float32), 100)
    return forecaster


@pytest.fixture
def rows(trained_yard: Yard, knowing: Forecaster) -> pd.DataFrame:
    config = trained_yard.config
    reference = read_part(trained_yard.settings, config.dataset.name, config.split.version_id, "reference")
    return example_rows(knowing.contract, reference)


def answers(forecaster: Forecaster, rows: pd.DataFrame) -> pd.DataFrame:
    panel = input_panel(forecaster.contract, rows)
    return answer_table(forecaster.contract, panel, forecaster.answer(panel))


def ahead(rows: pd.DataFrame) -> pd.Series:
    """Return which rows belong to the future."""
    return rows["top_oil_c"].isna() & (rows.groupby(ENTITY).cumcount(ascending=False) < HORIZON)


def test_serving_equals_training_future_and_intervals_included(trained_yard: Yard, knowing: Forecaster) -> None:
    config = trained_yard.config
    history = load_history(config.dataset, config.features.columns, trained_yard.settings)
    report = check_parity(knowing, config.dataset, history, trained_yard.settings, samples=200)
    assert (report.cutoffs, report.differences) == (200, ())


def test_an_example_holds_of_the_future_what_a_request_would(knowing: Forecaster, rows: pd.DataFrame) -> None:
    future = rows[ahead(rows)]
    assert len(future) == 2 * HORIZON
    assert future[list(KNOWN)].notna().all().all()
    assert future[[name for name in FEATURES if name not in KNOWN]].isna().all().all()
    table = answers(knowing, rows)
    assert table["event_timestamp"].tolist() == future["event_timestamp"].tolist()
    assert differences(knowing, rows, knowing.predict(input_panel(knowing.contract, rows))) == []


def test_the_known_future_changes_the_forecast(knowing: Forecaster, rows: pd.DataFrame) -> None:
    warmer = rows.copy()
    warmer.loc[ahead(rows), "ambient_c"] += 15
    assert (answers(knowing, warmer)["top_oil_c"] != answers(knowing, rows)["top_oil_c"]).any()


def test_nothing_else_of_the_future_is_looked_at(knowing: Forecaster, rows: pd.DataFrame) -> None:
    told = rows.copy()
    told.loc[ahead(rows), ["load_pu", "top_oil_c", "hot_spot_c"]] = 1e6
    pd.testing.assert_frame_equal(answers(knowing, told), answers(knowing, rows))


def test_intervals_stand_in_the_table_beside_the_forecast(knowing: Forecaster, rows: pd.DataFrame) -> None:
    table = answers(knowing, rows)
    assert list(table)[2:] == ["top_oil_c", "top_oil_c_lower", "top_oil_c_upper"]
    assert (table["top_oil_c_lower"] < table["top_oil_c"]).all()
    assert (table["top_oil_c"] < table["top_oil_c_upper"]).all()


def test_too_short_a_future_is_refused(knowing: Forecaster, rows: pd.DataFrame) -> None:
    short = rows.groupby(ENTITY).head(len(rows) // 2 - 1)
    expected = (
        r"a forecast needs \d+ \(24 of lookback and \d+ of .* context\), then 6 with the future of ambient_c, cool"
    )
    with pytest.raises(ValueError, match=expected):
        answers(knowing, short)


def test_a_stored_pair_keeps_what_is_known_and_its_intervals(
    knowing: Forecaster, rows: pd.DataFrame, tmp_path: Path
) -> None:
    save_model(knowing.model, "xgboost", tmp_path / "model")
    loaded = Forecaster(knowing.contract, knowing.preprocessor, load_model(tmp_path / "model"))
    pd.testing.assert_frame_equal(answers(loaded, rows), answers(knowing, rows))
