"""The parity check sees every way in which serving could compute something else than training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import ENTITY, ExperimentConfig, load_experiment
from mlplatform.features.feast.repository import apply_dataset
from mlplatform.features.online.materialize import materialize_online
from mlplatform.features.retrieval import load_history
from mlplatform.features.tables.feature_table import features_path, windows_path
from mlplatform.preprocessing.transforms.impute import Impute
from mlplatform.promotion.parity import ParityReport, check_parity
from mlplatform.registry.forecaster import Contract, Forecaster
from mlplatform.testing import write_feature_table
from mlplatform.testing.yard import Yard, write_conf
from mlplatform_tests.fixtures.pairs import fit_forecaster


def parity(yard: Yard, forecaster: Forecaster, samples: int = 32) -> ParityReport:
    config = yard.config
    history = load_history(config.dataset, config.features.columns, yard.settings)
    return check_parity(forecaster, config.dataset, history, yard.settings, samples=samples)


def test_a_real_run_passes_on_gaps_too(trained_yard: Yard, forecaster: Forecaster) -> None:
    report = parity(trained_yard, forecaster, samples=400)
    assert report == ParityReport(online_windows=2, cutoffs=400, differences=())


def change_last(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(windows: pd.DataFrame) -> pd.DataFrame:
        arrays = list(windows[column])
        last = arrays[1].copy()
        last[-1] = np.nextafter(np.float32(last[-1]), np.float32(np.inf)) if last.dtype != object else "OFAF"
        return windows.assign(**{column: [arrays[0], last]})

    return change


@pytest.mark.parametrize("column", ["load_pu", "cooling"])
def test_one_changed_bit_in_the_online_store_is_named(yard: Yard, forecaster: Forecaster, column: str) -> None:
    settings, dataset = yard.settings, yard.config.dataset
    path = windows_path(dataset, settings)
    change_last(f"window_{column}")(pd.read_parquet(path)).to_parquet(path, index=False)
    apply_dataset(dataset, settings)
    materialize_online(dataset, settings)
    assert parity(yard, forecaster).differences == (
        f"entity 2: the online window of {column!r} differs from the offline window",
    )


def test_an_online_store_that_is_behind_says_what_to_do(yard: Yard, forecaster: Forecaster) -> None:
    settings = yard.settings
    write_conf(yard.conf, fleet={"end": "2024-03-02"})
    dataset = load_experiment(yard.config.name, settings=settings).dataset
    from mlplatform.data.raw import ingest
    from mlplatform.data.raw_table import read_raw

    ingest(dataset, settings)
    write_feature_table(read_raw(dataset, settings), dataset, settings)
    apply_dataset(dataset, settings)
    (difference,) = parity(yard, forecaster).differences
    assert "materialise online_features again" in difference
    materialize_online(dataset, settings)
    assert parity(yard, forecaster).differences == ()


def test_a_preprocessor_that_looks_back_further_than_it_says_is_found(
    trained_yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Impute, "context", property(lambda _: 0))
    dishonest = fit_forecaster(trained_yard, rounds=2)
    assert dishonest.contract.context == 0
    report = parity(trained_yard, dishonest, samples=400)
    assert report.differences
    assert all("the serving path's inputs differ from the training path's" in line for line in report.differences)
    assert report.differences[0].startswith(("entity 1 at 2024-", "entity 2 at 2024-"))


def test_a_history_shorter_than_one_window_is_a_difference(trained_yard: Yard, forecaster: Forecaster) -> None:
    config = trained_yard.config
    history = load_history(config.dataset, config.features.columns, trained_yard.settings)
    short = history.groupby(ENTITY).head(forecaster.contract.input_rows - 1)
    report = check_parity(forecaster, config.dataset, short, trained_yard.settings)
    assert any("no entity has the 30 rows" in line for line in report.differences)


TABULAR = ("diabetes_xgboost", "breast_cancer_xgboost")


@pytest.mark.parametrize("name", TABULAR)
def test_tabular_rows_are_compared_as_well(yard: Yard, name: str) -> None:
    settings = yard.settings
    config: ExperimentConfig = load_experiment(name, settings=settings)
    pair = _put_online(config, yard)
    history = load_history(config.dataset, tuple(config.dataset.columns), settings)
    assert check_parity(pair, config.dataset, history, settings).differences == ()
    column = config.features.columns[0]
    table = pd.read_parquet(features_path(config.dataset, settings))
    table[column] = table[column] + 0.5
    write_feature_table(table, config.dataset, settings)
    changed = load_history(config.dataset, tuple(config.dataset.columns), settings)
    differences = check_parity(pair, config.dataset, changed, settings).differences
    assert len(differences) == 32
    assert "the online row differs from the offline row" in differences[0]


def _put_online(config: ExperimentConfig, yard: Yard) -> Forecaster:
    """Return a pair for a tabular experiment whose rows are in both stores; parity never looks at its model."""
    from mlplatform.data.raw import ingest
    from mlplatform.data.raw_table import read_raw
    from mlplatform.datamodule.panel import Panel
    from mlplatform.preprocessing.manager import TransformManager

    settings = yard.settings
    ingest(config.dataset, settings)
    rows = read_raw(config.dataset, settings)
    write_feature_table(rows, config.dataset, settings)
    apply_dataset(config.dataset, settings)
    materialize_online(config.dataset, settings)
    manager = TransformManager.for_experiment(config)
    manager.fit(Panel.from_frame(rows, tuple(manager.columns)))
    return Forecaster(Contract.for_experiment(config, manager), manager, yard.candidate.model)
