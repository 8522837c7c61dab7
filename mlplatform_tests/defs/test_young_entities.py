"""Machines that were installed a short while ago: trained beside the others, and in nobody's way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlplatform.datamodule import REFERENCE, create_data_module, read_part
from mlplatform.promotion.gate import run_gate
from mlplatform.registry.pairs import PRODUCTION
from mlplatform.testing.meters import meter_rows, meter_yard
from mlplatform.testing.yard import EXPERIMENT, TRAIN, Yard, checks_of

# A forecast reads 24 hours and 6 before them, and is judged by the 6 after: `late` has a few, `new` has none.
HOURS = {"old": 480, "older": 480, "late": 60, "new": 30}


@pytest.fixture(scope="module")
def young_yard(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Yard:
    yard = meter_yard(tmp_path_factory.mktemp("young"), mlflow_database, meter_rows(HOURS))
    result = yard.run(TRAIN)
    assert result.success
    assert all(check.passed for check in checks_of(result).values())
    return yard


def test_a_pair_is_promoted_and_its_score_is_that_of_the_samples_that_can_be_asked_for(young_yard: Yard) -> None:
    assert young_yard.pairs.resolve(EXPERIMENT, PRODUCTION).version == 1
    entities = young_yard.candidate.report.candidate.entities[REFERENCE]
    assert set(entities) == {"old", "older", "late"}
    module = create_data_module(young_yard.config, read_part(young_yard.settings, "yard", "yard", REFERENCE))
    answerable = module.with_history(30)
    counts = dict(zip(*np.unique(answerable.panel.row_entities[answerable.rows], return_counts=True), strict=True))
    assert counts == {"old": 115, "older": 115, "late": 60 - 30 - 6 + 1}
    assert answerable.left_out == {"new": 30}


def test_who_is_left_out_is_named(young_yard: Yard) -> None:
    (run,) = young_yard.instance.get_runs()
    messages = [entry.user_message for entry in young_yard.instance.all_logs(run.run_id)]
    (said,) = [line for line in messages if "nothing is forecast for" in line]
    assert "reference: nothing is forecast for new (30 rows): a forecast needs 30 rows up to its origin and 6" in said
    pair = young_yard.pairs.resolve(EXPERIMENT, "latest")
    reference = run_gate(young_yard.config, pair, young_yard.pairs).decision.reference
    assert reference is not None
    assert reference.left_out == ("new",)


def test_a_champion_that_looks_back_further_is_compared_where_both_can_answer(young_yard: Yard) -> None:
    """It was chosen before the machine came: that it cannot answer for this one must not keep it in production."""
    wide = {"resources": {"training": {"config": {"overrides": ["lookback=40"]}}}}
    assert young_yard.run(TRAIN, wide).success
    store = young_yard.pairs
    assert store.load(store.promote(EXPERIMENT, 2, who="test", why="a test")).contract.input_rows == 46
    report = run_gate(young_yard.config, store.resolve(EXPERIMENT, 1), store)
    assert report.decision.champion is not None
    assert report.decision.champion.obstacle == ""
    assert report.decision.champion.score is not None
    # Of `late`, 60 hours long, what needs 46 before it instead of 30.
    samples = 115 + 115 + (60 - 46 - 6 + 1)
    assert {role: errors.shape for role, errors in report.errors.items()} == {
        "candidate": (samples,),
        "champion": (samples,),
    }
