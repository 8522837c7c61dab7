"""A feed that exchanges two columns looks like drift; the version that learnt them does not get into production."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mlplatform.data.simulation import FleetOptions, simulate_fleet
from mlplatform.registry.pairs import PRODUCTION
from mlplatform.testing.yard import EXPERIMENT, FLEET, GROUPS, TRAIN, Yard, checks_of, write_option

pytestmark = pytest.mark.integration
BROKEN_FROM = pd.Timestamp("2024-03-01", tz="UTC")


def test_a_version_that_learnt_exchanged_columns_is_not_promoted(tmp_path: Path, mlflow_database: Path) -> None:
    yard = Yard.create(tmp_path, mlflow_database)
    csv = tmp_path / "yard.csv"
    free = {name: {} if "type" not in column else column for name, column in GROUPS["dataset"]["columns"].items()}
    dataset = {**GROUPS["dataset"], "source": {"uri": str(csv)}, "columns": free}
    write_option(yard.conf, "dataset/yard", dataset)
    rows = simulate_fleet(FleetOptions.model_validate({**FLEET, "end": "2024-03-22", "outlier_rate": 0}))
    rows["timestamp"] = pd.to_datetime(rows["timestamp"], utc=True)
    rows[rows["timestamp"] < BROKEN_FROM].to_csv(csv, index=False)
    assert yard.run(TRAIN).success
    assert yard.pairs.resolve(EXPERIMENT, PRODUCTION).version == 1

    broken = rows["timestamp"] >= BROKEN_FROM
    names = ["ambient_c", "top_oil_c"]
    rows.loc[broken, names] = rows.loc[broken, names[::-1]].to_numpy()
    rows.to_csv(csv, index=False)
    asked = {"resources": {"training": {"config": {"split_version": "yard@20240321T2300"}}}}
    trained = yard.run(TRAIN, asked, tags={"drift/cause": "feature:top_oil_c"})
    assert trained.success
    gate = checks_of(trained)["promotion_gate"]
    assert not gate.passed
    assert "columns 'ambient_c' and 'top_oil_c' seem to be exchanged" in (gate.description or "")
    assert yard.pairs.resolve(EXPERIMENT, PRODUCTION).version == 1
