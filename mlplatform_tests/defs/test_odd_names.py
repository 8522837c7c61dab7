"""Columns as people call them: trained, recorded, drawn, promoted."""

from __future__ import annotations

from pathlib import Path

from mlplatform.registry.pairs import PRODUCTION
from mlplatform.registry.runs import mlflow_name
from mlplatform.testing.meters import meter_rows, meter_yard
from mlplatform.testing.yard import EXPERIMENT, TRAIN

TARGET = "Öl-Temperatur (°C), $^$"


def test_a_target_may_be_called_as_it_is_in_the_file(tmp_path: Path, mlflow_database: Path) -> None:
    rows = meter_rows({"old": 400}).rename(columns={"load": TARGET})
    named = {"dataset": {"columns": {TARGET: {}}}, "features": {"columns": [TARGET]}, "targets": [TARGET]}
    yard = meter_yard(tmp_path, mlflow_database, rows, **named)
    assert yard.run(TRAIN).success
    pair = yard.pairs.resolve(EXPERIMENT, PRODUCTION)
    assert pair.version == 1
    recorded = yard.pairs.client.get_run(pair.run_id).data.params
    assert float(recorded[mlflow_name(f"data.train.{TARGET}.missing")]) == 0
