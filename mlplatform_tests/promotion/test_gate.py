"""The promotion gate: champion and candidate are scored again, on the same untouched rows, by the same code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule.factory import create_data_module
from mlplatform.datamodule.splits import REFERENCE, TRAIN, read_part
from mlplatform.promotion.gate import naive_scores, run_gate
from mlplatform.promotion.gate_plot import plot_gate
from mlplatform.promotion.scoring import answer_part
from mlplatform.registry.pairs import PairInfo, PairStore
from mlplatform.testing.yard import EXPERIMENT, Yard
from mlplatform_tests.fixtures.keys import write_key
from mlplatform_tests.fixtures.pairs import fit_forecaster
from mlplatform_tests.registry.conftest import Register


@pytest.fixture
def config(trained_yard: Yard) -> ExperimentConfig:
    return trained_yard.config


def pair(store: PairStore, version: int) -> PairInfo:
    """Return a pair of the stocked registry: 1 is weak, 2 and 3 are the trained one."""
    return store.resolve(EXPERIMENT, str(version))


def promote(store: PairStore, version: int) -> PairInfo:
    return store.promote(EXPERIMENT, version, who="test", why="a test")


def test_the_first_candidate_s_score_is_the_one_training_measured(
    config: ExperimentConfig, stocked: PairStore, trained_yard: Yard
) -> None:
    decision = run_gate(config, pair(stocked, 2), stocked).decision
    assert (decision.outcome, decision.champion) == ("first", None)
    assert decision.candidate.score == trained_yard.candidate.report.candidate.parts["reference"]["mae"]
    assert decision.metric == "reference_mae"


def test_scaled_errors_decide_in_units_of_each_series_training_rows(
    config: ExperimentConfig, stocked: PairStore
) -> None:
    policy = config.promotion.model_copy(update={"must_beat_baselines": False})
    scaled = config.model_copy(update={"metric": "mase", "promotion": policy})
    promote(stocked, 1)
    decision = run_gate(scaled, pair(stocked, 2), stocked).decision
    assert (decision.outcome, decision.metric) == ("better", "reference_mase")
    parts = [
        read_part(stocked.settings, config.dataset.name, config.split.version_id, part) for part in (TRAIN, REFERENCE)
    ]
    forecaster = stocked.load(pair(stocked, 2))
    module = create_data_module(config, parts[1]).with_history(forecaster.contract.input_rows)
    errors = np.abs(
        module.truth(forecaster.preprocessor, module.rows) - answer_part(forecaster, module, parts[1]).point
    )
    entities = module.panel.row_entities[module.rows]
    ratios = []
    for entity, rows in parts[0].groupby("entity_id"):
        change = rows["top_oil_c"].diff(24).abs().mean()
        ratios.append(errors[entities == entity].mean() / change)
    assert decision.candidate.score == pytest.approx(np.mean(ratios), rel=1e-5)


def test_both_are_scored_on_the_same_rows_whatever_was_recorded(config: ExperimentConfig, stocked: PairStore) -> None:
    promote(stocked, 1)
    decision = run_gate(config, pair(stocked, 2), stocked).decision
    assert decision.outcome == "better"
    assert decision.champion is not None
    assert decision.champion.version == 1
    assert decision.champion.score is not None
    assert decision.candidate.score is not None
    assert 0.0 < decision.candidate.score < decision.champion.score < 1e9


def test_where_signatures_are_asked_for_candidate_and_champion_both_need_one(
    config: ExperimentConfig, stocked: PairStore, tmp_path: Path
) -> None:
    promote(stocked, 1)
    key = write_key(tmp_path, "mine")
    store = PairStore(replace(stocked.settings, signing_key=key.private, verify_keys=(key.public,)))
    unsigned = run_gate(config, pair(store, 2), store).decision
    candidate = store.sign(EXPERIMENT, 2, who="test", why="a test")
    beside_unsigned = run_gate(config, candidate, store).decision
    for decision, version in ((unsigned, 2), (beside_unsigned, 1)):
        assert decision.outcome == "damaged"
        assert f"version {version} of {EXPERIMENT!r}, pair " in decision.reason
        assert "is not signed, and MLPLATFORM_VERIFY_KEY asks for signatures" in decision.reason
    store.sign(EXPERIMENT, 1, who="test", why="a test")
    assert run_gate(config, candidate, store).decision.outcome == "better"


def test_the_run_of_a_pair_is_fetched_once_for_a_decision(
    config: ExperimentConfig, stocked: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(stocked, 1)
    candidate, fetched = pair(stocked, 2), []
    real = stocked.client.get_run
    monkeypatch.setattr(stocked.client, "get_run", lambda run_id: fetched.append(run_id) or real(run_id))
    assert run_gate(config, candidate, stocked).decision.champion is not None
    assert sorted(fetched) == sorted({candidate.run_id, pair(stocked, 1).run_id})


def test_the_same_model_again_is_not_better_to_the_last_digit(config: ExperimentConfig, stocked: PairStore) -> None:
    promote(stocked, 2)
    decision = run_gate(config, pair(stocked, 3), stocked).decision
    assert decision.outcome == "not_better"
    assert decision.champion is not None
    assert decision.candidate.score == decision.champion.score


def test_naive_baselines_count_and_learnt_ones_do_not(config: ExperimentConfig, stocked: PairStore) -> None:
    info = pair(stocked, 2)
    for name, score in (("repeat_last", 0.1), ("ridge", 0.01)):
        stocked.client.log_metric(info.run_id, f"baseline_{name}_reference_mae", score)
    run = stocked.client.get_run(info.run_id)
    assert naive_scores(config, info, run) == {"repeat_last": 0.1, "seasonal_naive": 1e6}
    decision = run_gate(config, info, stocked).decision
    assert decision.outcome == "baseline"
    assert "repeat_last" in decision.reason


def test_a_champion_with_other_features_and_lookback_is_comparable(
    config: ExperimentConfig, store: PairStore, register: Register, trained_yard: Yard
) -> None:
    features = config.features.model_copy(update={"columns": ("top_oil_c", "load_pu"), "version": "two"})
    other = fit_forecaster(trained_yard, rounds=1, overrides={"features": features, "lookback": 12})
    assert (other.contract.columns, other.contract.lookback) == (("top_oil_c", "load_pu"), 12)
    store.promote(EXPERIMENT, register(other).version, who="test", why="a test")
    assert run_gate(config, register(), store).decision.outcome == "better"


def test_a_report_holds_the_error_of_every_reference_sample(config: ExperimentConfig, stocked: PairStore) -> None:
    promote(stocked, 1)
    report = run_gate(config, pair(stocked, 2), stocked)
    assert report.decision.champion is not None
    for role, contender in (("candidate", report.decision.candidate), ("champion", report.decision.champion)):
        assert float(np.mean(report.errors[role], dtype=np.float64)) == pytest.approx(contender.score, rel=1e-6)
    assert report.champion == pair(stocked, 1)
    assert report.decision.reference is not None
    assert report.decision.reference.rows == 336
    assert plot_gate(report).startswith(b"\x89PNG")
