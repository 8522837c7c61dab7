"""A metric that cannot score the rows fails the folds, and not the training that follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlplatform.defs.keys import CV_FOLDS, FOLD_PREPROCESSOR, TUNED_MODEL
from mlplatform.testing.meters import meter_rows, meter_yard
from mlplatform.testing.yard import EXPERIMENT, TRAIN, Yard
from mlplatform.training import DemandError

SAID = "reference: metric 'rmsle' needs true values of at least 0, but column 'load' goes down to"


def mlflow_runs(yard: Yard) -> int:
    client = yard.pairs.client
    return len(client.search_runs([each.experiment_id for each in client.search_experiments()]))


def test_nothing_is_fitted_for_a_metric_that_cannot_score_the_reference(tmp_path: Path, mlflow_database: Path) -> None:
    rows = meter_rows({"old": 400})
    rows.loc[rows.index[-20:], "load"] *= -1
    ranked = {"resources": {"training": {"config": {"overrides": ["extra_metrics=[rmsle]"]}}}}
    yard = meter_yard(tmp_path, mlflow_database, rows)
    result = yard.run(TRAIN, ranked, raise_on_error=False)
    failed = [event.step_key for event in result.all_events if event.is_step_failure]
    assert failed[0] == f"{EXPERIMENT}__{CV_FOLDS}"
    (why,) = [event for event in result.all_events if event.is_step_failure and event.step_key == failed[0]]
    assert SAID in why.step_failure_data.error_display_string
    # The metric may have been chosen after the folds were cut.
    assert yard.run(TRAIN, raise_on_error=False).success
    before = mlflow_runs(yard)
    for asset in (CV_FOLDS, FOLD_PREPROCESSOR):
        assert yard.settings.assets_dir.joinpath(EXPERIMENT, asset).exists()
    with pytest.raises(DemandError, match=SAID):
        yard.materialize(TUNED_MODEL, run_config=ranked)
    assert mlflow_runs(yard) == before == 1
