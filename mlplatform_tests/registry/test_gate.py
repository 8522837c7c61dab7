"""The promotion gate: champion and candidate are scored again, on the same untouched rows, by the same code."""

from __future__ import annotations

import datetime as dt
import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule.splits import SplitIntegrityError, split_dir
from mlplatform.registry.forecaster import Forecaster
from mlplatform.registry.gate import naive_scores, run_gate
from mlplatform.registry.pairs import PairInfo, PairIntegrityError, PairStore
from mlplatform_tests.registry.conftest import Register, fit_forecaster
from mlplatform_tests.yard import EXPERIMENT, Yard


@pytest.fixture
def config(trained_yard: Yard) -> ExperimentConfig:
    return trained_yard.config


def changed(forecaster: Forecaster, **contract: object) -> Forecaster:
    return Forecaster(replace(forecaster.contract, **contract), forecaster.preprocessor, forecaster.model)  # type: ignore[arg-type]


def pair(store: PairStore, version: int) -> PairInfo:
    """Return a pair of the stocked registry: 1 is weak, 2 and 3 are the trained one."""
    return store.resolve(EXPERIMENT, str(version))


def test_the_first_candidate_s_score_is_the_one_training_measured(
    config: ExperimentConfig, stocked: PairStore, trained_yard: Yard
) -> None:
    decision = run_gate(config, pair(stocked, 2), stocked)
    assert (decision.outcome, decision.champion) == ("first", None)
    assert decision.candidate.score == trained_yard.candidate.report.candidate.parts["reference"]["mae"]
    assert decision.metric == "reference_mae"


def test_both_are_scored_on_the_same_rows_whatever_was_recorded(config: ExperimentConfig, stocked: PairStore) -> None:
    stocked.promote(pair(stocked, 1))
    decision = run_gate(config, pair(stocked, 2), stocked)
    assert decision.outcome == "better"
    assert decision.champion is not None
    assert decision.champion.version == 1
    assert decision.champion.score is not None
    assert decision.candidate.score is not None
    assert 0.0 < decision.candidate.score < decision.champion.score < 1e9


def test_the_same_model_again_is_not_better_to_the_last_digit(config: ExperimentConfig, stocked: PairStore) -> None:
    stocked.promote(pair(stocked, 2))
    decision = run_gate(config, pair(stocked, 3), stocked)
    assert decision.outcome == "not_better"
    assert decision.champion is not None
    assert decision.candidate.score == decision.champion.score


def test_the_champion_itself_is_current_and_an_older_version_never_replaces_it(
    config: ExperimentConfig, stocked: PairStore
) -> None:
    stocked.promote(pair(stocked, 3))
    assert run_gate(config, pair(stocked, 3), stocked).outcome == "current"
    assert run_gate(config, pair(stocked, 2), stocked).outcome == "older"


def test_naive_baselines_count_and_learnt_ones_do_not(config: ExperimentConfig, stocked: PairStore) -> None:
    info = pair(stocked, 2)
    for name, score in (("repeat_last", 0.1), ("ridge", 0.01)):
        stocked.client.log_metric(info.run_id, f"baseline_{name}_reference_mae", score)
    assert naive_scores(config, info, stocked) == {"repeat_last": 0.1, "seasonal_naive": 1e6}
    decision = run_gate(config, info, stocked)
    assert decision.outcome == "baseline"
    assert "repeat_last" in decision.reason


def test_a_run_without_its_baseline_scores_is_named(config: ExperimentConfig, stocked: PairStore) -> None:
    info = pair(stocked, 2)
    asked = config.model_copy(update={"extra_metrics": (), "metric": "rmse"})
    with pytest.raises(LookupError, match=f"{info.run_id}.*baseline_repeat_last_reference_rmse"):
        run_gate(asked, info, stocked)


def test_the_cooldown_counts_from_the_champion_s_promotion(config: ExperimentConfig, stocked: PairStore) -> None:
    patient = config.model_copy(update={"promotion": config.promotion.model_copy(update={"cooldown_hours": 2.0})})
    promoted_at = stocked.promote(pair(stocked, 1)).promoted_at
    assert promoted_at is not None
    for hours, outcome in ((1.9, "cooldown"), (2.0, "better")):
        decision = run_gate(patient, pair(stocked, 2), stocked, now=promoted_at + dt.timedelta(hours=hours))
        assert decision.outcome == outcome


INCOMPARABLE: tuple[tuple[dict[str, object], str], ...] = (
    ({"horizon": 3}, "over 3 steps instead of top_oil_c over 6"),
    ({"targets": ("hot_spot_c",)}, "predicts hot_spot_c over 6 steps"),
    ({"columns": ("load_pu", "ambient_c", "top_oil_c", "pressure")}, "reads pressure"),
    ({"lookback": 500}, "looks back 506 steps"),
)


def test_a_champion_that_cannot_be_compared_stays_and_the_reason_says_why(
    config: ExperimentConfig, store: PairStore, register: Register, forecaster: Forecaster
) -> None:
    champions = [register(changed(forecaster, **contract)) for contract, _ in INCOMPARABLE]
    candidate = register()
    for champion, (_, reason) in zip(champions, INCOMPARABLE, strict=True):
        store.promote(champion)
        decision = run_gate(config, candidate, store)
        assert (decision.promote, decision.outcome) == (False, "incomparable")
        assert f"version {champion.version}" in decision.reason
        assert reason in decision.reason


def test_a_champion_with_other_features_and_lookback_is_comparable(
    config: ExperimentConfig, store: PairStore, register: Register, trained_yard: Yard
) -> None:
    features = config.features.model_copy(update={"columns": ("top_oil_c", "load_pu"), "version": "two"})
    other = fit_forecaster(trained_yard, rounds=1, overrides={"features": features, "lookback": 12})
    assert (other.contract.columns, other.contract.lookback) == (("top_oil_c", "load_pu"), 12)
    store.promote(register(other))
    assert run_gate(config, register(), store).outcome == "better"


def test_a_changed_champion_stops_the_gate(config: ExperimentConfig, store: PairStore, register: Register) -> None:
    store.promote(register())
    uri = store.client.get_model_version_download_uri(f"{EXPERIMENT}_model", "1")
    folder = Path(mlflow.artifacts.download_artifacts(f"{uri}/artifacts/model"))
    (folder / "model.json").write_text("{}")
    with pytest.raises(PairIntegrityError, match="version 1"):
        run_gate(config, register(), store)


@pytest.mark.parametrize("tampering", ["other rows", "no file"])
def test_a_changed_reference_set_stops_the_gate(
    config: ExperimentConfig, stocked: PairStore, tmp_path: Path, tampering: str
) -> None:
    home = tmp_path / "other-home"
    settings = replace(stocked.settings, home=home)
    shutil.copytree(stocked.settings.splits_dir, settings.splits_dir)
    reference = split_dir(settings, "yard", config.split.version_id) / "reference.parquet"
    if tampering == "other rows":
        easier = pd.read_parquet(reference).assign(top_oil_c=lambda rows: rows["top_oil_c"].mean())
        easier.to_parquet(reference, index=False)
    else:
        reference.unlink()
    with pytest.raises(SplitIntegrityError, match=r"reference\.parquet"):
        run_gate(config, pair(stocked, 2), PairStore(settings))
