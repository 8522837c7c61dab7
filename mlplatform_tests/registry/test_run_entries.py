"""Names and numbers of a run: whatever columns, models and metrics are called, MLflow takes it."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric, _validate_param, _validate_tag

from mlplatform.registry import experiment_id, open_tracking
from mlplatform.registry.runs.entries import log_params, log_scores, mlflow_name, scores_without_a_number, set_tags
from mlplatform.settings import Settings
from mlplatform.testing.yard import place_database

ODD = (
    "Öl-Temperatur (°C)",
    "a[b]",
    "a{b}",
    "rate %/h",
    "../up",
    "/top",
    "a//b",
    "a/",
    ".",
    "..",
    "a\n",
    "x" * 400,
    "温度",
)


@given(st.one_of(st.sampled_from(ODD), st.text(min_size=1)))
def test_mlflow_takes_the_name_of_anything(name: str) -> None:
    spelled = mlflow_name(name)
    _validate_param(spelled, "1")
    _validate_tag(spelled, "1")
    _validate_metric(spelled, 1.0, 0, 0)
    assert mlflow_name(spelled) == spelled


@given(st.lists(st.one_of(st.sampled_from(ODD), st.text("ab([/.", min_size=1)), unique=True))
def test_two_names_stay_two(names: list[str]) -> None:
    assert len(set(map(mlflow_name, names))) == len(names)


@pytest.mark.parametrize("name", ["fold_0_mae", "data.train.top_oil_c.mean", "Öl temperature: high", "a/b", "x" * 250])
def test_what_mlflow_takes_keeps_its_name(name: str) -> None:
    assert mlflow_name(name) == name


def test_the_spelling_is_the_same_in_every_version() -> None:
    """Runs of earlier versions are read by it."""
    assert mlflow_name("Temperatur (°C)") == "Temperatur __C_-8912dad0"


@pytest.fixture
def settings(tmp_path: Path, mlflow_database: Path) -> Settings:
    installed = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)})
    place_database(mlflow_database, installed)
    open_tracking(installed)
    return installed


def test_odd_names_many_entries_and_scores_without_a_number(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with mlflow.start_run(experiment_id=experiment_id(settings, "entries")) as run, caplog.at_level(logging.WARNING):
        log_params({f"Druck [{number}]": "x" * 900 for number in range(150)})
        set_tags({f"tag ({number})": "yes" for number in range(150)})
        scores = {f"score ({number})": float(number) for number in range(1200)}
        log_scores({**scores, "reference_auc": math.nan, "endless": math.inf}, {"curve": [3.0, math.nan, 1.0]})
    data = mlflow.MlflowClient().get_run(run.info.run_id).data
    assert data.params[mlflow_name("Druck [149]")] == "x" * 500
    assert data.tags[mlflow_name("tag (149)")] == "yes"
    assert {name: data.metrics[mlflow_name(name)] for name in scores} == scores
    assert data.metrics["curve"] == 1.0
    assert not {"reference_auc", "endless"} & set(data.metrics)
    assert scores_without_a_number(data.tags) == {"reference_auc", "endless", "curve"}
    assert "not recorded: reference_auc, endless, curve" in caplog.text
    assert [
        (point.step, point.value)
        for point in mlflow.MlflowClient().get_metric_history(run.info.run_id, "curve")
    ] == [(1, 3.0), (3, 1.0)]  # fmt: skip
