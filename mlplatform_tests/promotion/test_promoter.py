"""The promoter trusts nobody: a failed, missing or stale result of any check, and nothing changes."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule.splits import split_dir
from mlplatform.promotion import promoter
from mlplatform.promotion.active_config import active_config_path, read_active_pair, read_active_versions
from mlplatform.promotion.checks import check_promotion_gate
from mlplatform.promotion.evidence import LEAKAGE, find_evidence, keep_evidence
from mlplatform.promotion.promoter import Promotion, PromotionRefusedError, promote_pair
from mlplatform.registry.pairs import PRODUCTION, PairInfo, PairIntegrityError, PairStore
from mlplatform.registry.pairs.evidence import PAIR_INTEGRITY, PROMOTION_GATE, SERVING_PARITY, Evidence
from mlplatform.settings import Settings
from mlplatform.testing.yard import EXPERIMENT, Yard


@pytest.fixture
def config(trained_yard: Yard) -> ExperimentConfig:
    return trained_yard.config


@pytest.fixture
def store(stocked: PairStore, tmp_path: Path) -> PairStore:
    """The stocked registry with the splits of the yard, but an active configuration of its own."""
    from dataclasses import replace

    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    (home / "data" / "splits").symlink_to(stocked.settings.splits_dir)
    return PairStore(replace(stocked.settings, home=home))


def pair(store: PairStore, version: int) -> PairInfo:
    return store.resolve(EXPERIMENT, str(version))


def vouch(store: PairStore, config: ExperimentConfig, version: int, *, without: str = "", failed: str = "") -> None:
    """Keep the results of all checks on a version, as a training run does; all of them good unless said otherwise."""
    for check in (LEAKAGE, PAIR_INTEGRITY, SERVING_PARITY):
        if check != without:
            keep_evidence(store, pair(store, version), check, Evidence(check != failed, "two values differ"))
    if without != PROMOTION_GATE:
        check_promotion_gate(config, pair(store, version), store)


def promote(store: PairStore, config: ExperimentConfig, version: int, **options: Any) -> Promotion:
    return promote_pair(config, pair(store, version), store, who="test", **options)


def production(store: PairStore) -> int | None:
    found = store.find(EXPERIMENT, PRODUCTION)
    return found.version if found else None


def test_a_candidate_that_passed_everything_is_promoted_and_its_versions_are_the_new_defaults(
    store: PairStore, config: ExperimentConfig
) -> None:
    vouch(store, config, 1)
    first = promote(store, config, 1)
    assert (first.promoted, first.outcome, first.production) == (True, "first", 1)
    vouch(store, config, 2)
    better = promote(store, config, 2, why="because")
    assert (better.promoted, better.outcome, better.production) == (True, "better", 2)
    assert read_active_versions(EXPERIMENT, store.settings) == config.versions
    assert read_active_pair(EXPERIMENT, store.settings) == 2
    changes = [change for change in store.history(EXPERIMENT) if change.alias == PRODUCTION]
    assert [(change.to_version, change.who) for change in changes] == [(1, "test"), (2, "test")]
    assert "there is no champion yet" in changes[0].why
    assert changes[1].why == "because"


@pytest.mark.parametrize("check", [LEAKAGE, PAIR_INTEGRITY, SERVING_PARITY])
def test_a_failed_check_is_an_error_in_whatever_run_it_failed(
    store: PairStore, config: ExperimentConfig, check: str
) -> None:
    vouch(store, config, 2, failed=check)
    with pytest.raises(PromotionRefusedError, match=f"version 2 failed the check {check}: two values differ"):
        promote(store, config, 2)
    assert production(store) is None
    assert not active_config_path(EXPERIMENT, store.settings).exists()


@pytest.mark.parametrize("check", [LEAKAGE, PAIR_INTEGRITY, SERVING_PARITY])
def test_a_check_that_never_looked_is_named(store: PairStore, config: ExperimentConfig, check: str) -> None:
    vouch(store, config, 2, without=check)
    promotion = promote(store, config, 2)
    assert (promotion.promoted, promotion.outcome) == (False, "unchecked")
    assert f"version 2 was never checked for {check}" in promotion.reason
    assert production(store) is None


def test_a_candidate_that_never_went_through_the_gate_stays_outside(store: PairStore, config: ExperimentConfig) -> None:
    vouch(store, config, 2, without=PROMOTION_GATE)
    promotion = promote(store, config, 2)
    assert (promotion.promoted, promotion.outcome) == (False, "gate_missing")
    assert "run the check promotion_gate of yard_xgboost/registered_pair" in promotion.reason
    assert production(store) is None


def test_a_gate_that_said_no_holds_even_if_it_would_say_yes_now(store: PairStore, config: ExperimentConfig) -> None:
    keep_evidence(store, pair(store, 2), PROMOTION_GATE, Evidence(False, "not better"))
    patient = config.model_copy(update={"promotion": config.promotion.model_copy(update={"cooldown_hours": 1.0})})
    store.promote(EXPERIMENT, 1, who="test", why="a test")
    vouch(store, patient, 2)
    kept = find_evidence(store, pair(store, 2), PROMOTION_GATE)
    assert kept is not None
    assert not kept.passed
    promotion = promote(store, patient, 2, now=dt.datetime.now(dt.UTC) + dt.timedelta(hours=2))
    assert (promotion.promoted, promotion.outcome) == (False, "gate_failed")
    assert "was promoted 0.0 h ago" in promotion.reason
    assert production(store) == 1


def test_a_decision_against_another_champion_is_stale(store: PairStore, config: ExperimentConfig) -> None:
    vouch(store, config, 2)
    store.promote(EXPERIMENT, 1, who="test", why="a test")
    promotion = promote(store, config, 2)
    assert (promotion.promoted, promotion.outcome) == (False, "gate_stale")
    assert "is about another champion" in promotion.reason
    assert production(store) == 1
    check_promotion_gate(config, pair(store, 2), store)
    assert promote(store, config, 2).promoted


@pytest.mark.parametrize(
    ("change", "named"), [({"margin": 0.01}, "policy"), ({"min_reference_rows": 30}, "policy"), ({}, "metric")]
)
def test_a_decision_by_another_policy_or_metric_is_stale(
    store: PairStore, config: ExperimentConfig, change: dict[str, Any], named: str
) -> None:
    vouch(store, config, 2)
    other = config.model_copy(update={"promotion": config.promotion.model_copy(update=change)})
    if named == "metric":
        store.client.log_metric(pair(store, 2).run_id, "baseline_repeat_last_reference_rmse", 1e6)
        store.client.log_metric(pair(store, 2).run_id, "baseline_seasonal_naive_reference_rmse", 1e6)
        other = config.model_copy(update={"metric": "rmse"})
    promotion = promote(store, other, 2)
    assert (promotion.promoted, promotion.outcome) == (False, "gate_stale")
    assert f"is about another {named};" in promotion.reason


@pytest.mark.parametrize("where", ["run", "policy"])
def test_a_dry_run_reports_what_would_happen(store: PairStore, config: ExperimentConfig, where: str) -> None:
    vouch(store, config, 2)
    policy = config.promotion.model_copy(update={"dry_run": where == "policy"})
    promotion = promote(store, config.model_copy(update={"promotion": policy}), 2, dry_run=where == "run")
    assert (promotion.promoted, promotion.outcome, promotion.decision.promote) == (False, "dry_run", True)
    assert "nothing changes" in promotion.reason
    assert production(store) is None
    assert not active_config_path(EXPERIMENT, store.settings).exists()
    assert promote(store, config, 2).promoted


def test_what_the_gate_refuses_now_is_refused_with_its_reason(store: PairStore, config: ExperimentConfig) -> None:
    vouch(store, config, 2)
    assert promote(store, config, 2).promoted
    vouch(store, config, 3)
    promotion = promote(store, config, 3)
    assert (promotion.promoted, promotion.outcome, promotion.production) == (False, "not_better", 2)


def test_a_changed_reference_set_is_an_error(
    store: PairStore, config: ExperimentConfig, trained_yard: Yard, tmp_path: Path
) -> None:
    import shutil
    from dataclasses import replace

    vouch(store, config, 2)
    settings: Settings = replace(store.settings, home=tmp_path / "changed")
    shutil.copytree(trained_yard.settings.splits_dir, settings.splits_dir)
    reference = split_dir(settings, "yard", "yard") / "reference.parquet"
    pd.read_parquet(reference).tail(200).to_parquet(reference, index=False)
    with pytest.raises(PromotionRefusedError, match=r"version 2: .*reference\.parquet has SHA-256"):
        promote(PairStore(settings), config, 2)
    assert production(store) is None


def test_a_torn_candidate_is_an_error(store: PairStore, config: ExperimentConfig) -> None:
    vouch(store, config, 2)
    candidate = pair(store, 2)
    store.client.set_model_version_tag(f"{EXPERIMENT}_preprocessor", "2", "pair_id", "another")
    with pytest.raises(PairIntegrityError, match="they are not a pair"):
        promote_pair(config, candidate, store, who="test")
    assert production(store) is None


class TestCutOff:
    """The alias is the commit point; what comes after it is made good by the next run."""

    def test_between_the_alias_and_the_active_configuration(
        self, store: PairStore, config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Killed(BaseException):
            pass

        def die(*_: Any) -> None:
            raise Killed

        vouch(store, config, 1)
        assert promote(store, config, 1).promoted
        vouch(store, config, 2)
        with monkeypatch.context() as patch:
            patch.setattr(promoter, "write_active_config", die)
            with pytest.raises(Killed):
                promote(store, config, 2)
        assert (production(store), read_active_pair(EXPERIMENT, store.settings)) == (2, 1)
        self.complete(store, config, 2)
        assert promote(store, config, 2).outcome == "current"
        assert read_active_pair(EXPERIMENT, store.settings) == 2

    def test_a_file_that_someone_deleted_to_go_back_to_the_defaults_stays_deleted(
        self, store: PairStore, config: ExperimentConfig
    ) -> None:
        vouch(store, config, 2)
        assert promote(store, config, 2).promoted
        self.complete(store, config, 2)
        active_config_path(EXPERIMENT, store.settings).unlink()
        assert promote(store, config, 2).outcome == "current"
        assert not active_config_path(EXPERIMENT, store.settings).exists()

    def complete(self, store: PairStore, config: ExperimentConfig, version: int) -> None:
        """Give a pair the tags that registration in a training run gives it."""
        for key, value in config.versions.items():
            store.client.set_model_version_tag(f"{EXPERIMENT}_model", str(version), key, value)
