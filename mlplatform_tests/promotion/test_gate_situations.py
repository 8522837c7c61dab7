"""The gate in every situation it can meet: what it decides and the reason it gives, one row each.

The registry holds the weak pair as version 1 and the trained pair as versions 2 and 3. A situation prepares it, changes
the policy, and says what the gate must answer about its candidate.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import mlflow
import numpy as np
import pandas as pd
import pytest

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule import REFERENCE, TrainingRows, read_manifest, sha256_of, split_dir
from mlplatform.promotion.decision import Outcome
from mlplatform.promotion.evidence import TOO_GOOD, Evidence, keep_evidence
from mlplatform.promotion.gate import run_gate
from mlplatform.promotion.retraining import DRIFT_CAUSE
from mlplatform.registry.forecaster import Forecaster
from mlplatform.registry.pairs import ROLES, PairInfo, PairStore
from mlplatform.registry.runs import record_training_rows
from mlplatform.testing.yard import EXPERIMENT, Yard


@dataclass
class Stage:
    """What a situation can change before the gate decides."""

    store: PairStore
    patch: pytest.MonkeyPatch
    undo: list[Callable[[], object]]

    def pair(self, version: int) -> PairInfo:
        return self.store.resolve(EXPERIMENT, str(version))

    def promote(self, version: int) -> None:
        self.store.promote(EXPERIMENT, version, who="test", why="a test")

    def record(self, version: int, **metrics: float) -> None:
        for name, value in metrics.items():
            self.store.client.log_metric(self.pair(version).run_id, name, value)

    def trained_until(self, version: int, day: str) -> None:
        self.store.client.log_param(self.pair(version).run_id, "data.train.end", f"{day}T00:00:00+00:00")

    def trained_on_reference_rows(self, version: int) -> None:
        part = read_manifest(self.store.settings, "yard", "yard").parts[REFERENCE]
        with mlflow.start_run(self.pair(version).run_id):
            record_training_rows(TrainingRows.between("2020-01-01T00:00:00+00:00", part.start))

    def doubt(self, version: int) -> None:
        keep_evidence(self.store, self.pair(version), TOO_GOOD, Evidence(False, "column 'load_pu' is the target"))

    def delete(self, version: int) -> None:
        for role in ROLES:
            self.store.client.delete_model_version(f"{EXPERIMENT}_{role}", str(version))

    def damage(self, version: int, role: str) -> None:
        """Flip a bit of an artifact; the artifacts are shared, so it is flipped back afterwards."""
        uri = self.store.client.get_model_version_download_uri(f"{EXPERIMENT}_{role}", str(version))
        (path, *_) = sorted(Path(mlflow.artifacts.download_artifacts(f"{uri}/artifacts/{role}")).glob("*.json"))
        whole = path.read_bytes()
        path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        self.undo.append(lambda: path.write_bytes(whole))

    def tear(self, version: int) -> None:
        self.store.client.set_model_version_tag(f"{EXPERIMENT}_preprocessor", str(version), "pair_id", "another")

    def answer_nan(self, version: int) -> None:
        """Let a pair answer NaN, as a model that diverged does."""
        self._replace(version, lambda forecaster: _Diverged(**vars(forecaster)))

    def err_thrice(self, version: int) -> None:
        self._replace(version, lambda forecaster: _Lucky(**vars(forecaster)))

    def retrained_for_drift(self, version: int) -> None:
        self.store.client.set_tag(self.pair(version).run_id, DRIFT_CAUSE, "feature:load_pu")

    def judged_before(self, version: int, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        """Let a pair come from an older split version, whose reference set is today's with a change."""
        self.reference(lambda _: None)
        folder = split_dir(self.store.settings, "yard", "yard")
        older = folder.with_name("older")
        shutil.copytree(folder, older)
        rows = change(pd.read_parquet(older / "reference.parquet"))
        rows.to_parquet(older / "reference.parquet", index=False)
        manifest = json.loads((older / "manifest.json").read_text())
        manifest["parts"][REFERENCE]["sha256"] = sha256_of(older / "reference.parquet")
        (older / "manifest.json").write_text(json.dumps(manifest))
        self.store.client.set_model_version_tag(f"{EXPERIMENT}_model", str(version), "split_version", "older")

    def change_contract(self, version: int, **values: object) -> None:
        self._replace(version, lambda pair: replace(pair, contract=replace(pair.contract, **values)))  # type: ignore[arg-type]

    def _replace(self, version: int, change: Callable[[Forecaster], Forecaster]) -> None:
        load = PairStore.load

        def load_changed(store: PairStore, info: PairInfo) -> Forecaster:
            return change(load(store, info)) if info.version == version else load(store, info)

        self.patch.setattr(PairStore, "load", load_changed)

    def reference(self, change: Callable[[Path], None]) -> None:
        """Change the reference file in a copy of the splits."""
        home = self.store.settings.home
        other = Path(self.store.settings.mlflow_tracking_uri.removeprefix("sqlite:///")).parent / "other-home"
        shutil.copytree(home / "data" / "splits", other / "data" / "splits")
        self.store = PairStore(replace(self.store.settings, home=other))
        change(split_dir(self.store.settings, "yard", "yard") / "reference.parquet")


class _Diverged(Forecaster):
    def postprocess(self, outputs: Any) -> Any:
        return np.full_like(super().postprocess(outputs), np.nan)


class _Lucky(Forecaster):
    def postprocess(self, outputs: Any) -> Any:
        """Let the errors of a few samples be greater, which makes the other pair better by them alone."""
        values = super().postprocess(outputs)
        values[:3] += 5
        return values


def easier(path: Path) -> None:
    pd.read_parquet(path).assign(top_oil_c=lambda rows: rows["top_oil_c"].mean()).to_parquet(path, index=False)


@dataclass(frozen=True)
class Situation:
    """One row of the table.

    Attributes:
        name: what the situation is.
        outcome: the rule that must decide.
        reason: regular expression for the reason it must give.
        steps: prepare the registry, in order.
        policy: values of the promotion policy.
        config: other values of the experiment.
        hours: between the preparation and the decision.
        word: of a person.
    """

    name: str
    outcome: str
    reason: str
    steps: tuple[Callable[[Stage], object], ...] = ()
    candidate: int = 2
    policy: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    hours: float = 0.0
    word: str = ""


WEAK_CHAMPION: tuple[Callable[[Stage], object], ...] = (lambda stage: stage.promote(1),)
STRONG_CHAMPION: tuple[Callable[[Stage], object], ...] = (lambda stage: stage.promote(2),)

SITUATIONS = (
    Situation(
        "the first candidate ever",
        "first",
        r"beats the baselines repeat_last with 1e\+06 and seasonal_naive with 1e\+06; there is no champion yet",
    ),
    Situation(
        "the first candidate, worse than a baseline that is not naive",
        "first",
        r"seasonal_naive with 1e\+06; does not beat ridge with 0\.1, which need not be beaten; there is no champion",
        (lambda stage: stage.record(2, baseline_ridge_reference_mae=0.1),),
    ),
    Situation(
        "the first candidate, worse than a naive rule",
        "baseline",
        r"does not beat the baseline repeat_last with 0\.1",
        (lambda stage: stage.record(2, baseline_repeat_last_reference_mae=0.1),),
    ),
    Situation("better than the champion", "better", r"reference_mae [\d.]+ beats version 1 with [\d.]+", WEAK_CHAMPION),
    Situation("equal to the champion", "not_better", "does not beat version 2", STRONG_CHAMPION, candidate=3),
    Situation(
        "worse than the champion",
        "not_better",
        "does not beat version 2",
        STRONG_CHAMPION,
        candidate=1,
        policy={"never_older": False},
    ),
    Situation(
        "better, but not by the margin",
        "not_better",
        r"by the margin of 95\.00%",
        WEAK_CHAMPION,
        policy={"margin": 0.95},
    ),
    Situation(
        "better than the champion, but a naive rule is better still",
        "baseline",
        r"does not beat the baseline seasonal_naive with 0\.2",
        (*WEAK_CHAMPION, lambda stage: stage.record(2, baseline_seasonal_naive_reference_mae=0.2)),
    ),
    Situation(
        "a naive rule is better, but the policy does not mind",
        "better",
        "beats version 1",
        (*WEAK_CHAMPION, lambda stage: stage.record(2, baseline_seasonal_naive_reference_mae=0.2)),
        policy={"must_beat_baselines": False},
    ),
    Situation(
        "a naive rule that was not a number",
        "baseline",
        "does not beat the baseline repeat_last with nan",
        (lambda stage: stage.record(2, baseline_repeat_last_reference_mae=float("nan")),),
    ),
    Situation(
        "a candidate that answers NaN",
        "incomparable",
        "version 2 cannot be scored: its score is nan",
        (*WEAK_CHAMPION, lambda stage: stage.answer_nan(2)),
    ),
    Situation(
        "the first candidate, which answers NaN",
        "incomparable",
        "version 2 cannot be scored: its score is nan",
        (lambda stage: stage.answer_nan(2),),
        policy={"must_beat_baselines": False},
    ),
    Situation(
        "a champion that answers NaN",
        "incomparable",
        "the champion, version 1, cannot be compared: its score is nan",
        (*WEAK_CHAMPION, lambda stage: stage.answer_nan(1)),
    ),
    Situation(
        "a champion whose versions were deleted",
        "first",
        "there is no champion yet",
        (*WEAK_CHAMPION, lambda stage: stage.delete(1)),
    ),
    Situation(
        "a champion that cannot be read",
        "damaged",
        r"yard_xgboost_model version 1 were changed after registration: artifacts/model/contract\.json",
        (*WEAK_CHAMPION, lambda stage: stage.damage(1, "model")),
    ),
    Situation(
        "a champion whose preprocessor belongs to another pair",
        "damaged",
        "version 1 of 'yard_xgboost_preprocessor' has pair id 'another'",
        (*WEAK_CHAMPION, lambda stage: stage.tear(1)),
    ),
    Situation(
        "a candidate that was tampered with",
        "damaged",
        r"yard_xgboost_preprocessor version 2 were changed after registration: artifacts/preprocessor/contract\.json",
        (*WEAK_CHAMPION, lambda stage: stage.damage(2, "preprocessor")),
    ),
    Situation(
        "a candidate that is not whole",
        "damaged",
        "they are not a pair",
        (*WEAK_CHAMPION, lambda stage: stage.tear(2)),
    ),
    Situation(
        "a reference set that was changed",
        "damaged",
        r"reference\.parquet has SHA-256 [0-9a-f]{64}, but its manifest records",
        (*WEAK_CHAMPION, lambda stage: stage.reference(easier)),
    ),
    Situation(
        "a reference set that is gone",
        "damaged",
        r"reference\.parquet is missing; restore it with `dvc checkout`",
        (*WEAK_CHAMPION, lambda stage: stage.reference(Path.unlink)),
    ),
    Situation(
        "too little reference data",
        "too_little_data",
        "split version yard has 336 rows, and the policy asks for 337",
        WEAK_CHAMPION,
        policy={"min_reference_rows": 337},
    ),
    Situation(
        "during the cool-down",
        "cooldown",
        r"version 1 was promoted 1\.9 h ago, and the policy asks for 2 h",
        WEAK_CHAMPION,
        policy={"cooldown_hours": 2},
        hours=1.9,
    ),
    Situation(
        "after the cool-down", "better", "beats version 1", WEAK_CHAMPION, policy={"cooldown_hours": 2}, hours=2.01
    ),
    Situation(
        "worse during the cool-down", "not_better", "does not beat", STRONG_CHAMPION, 3, {"cooldown_hours": 2}, hours=1
    ),
    Situation(
        "a candidate that was trained on reference rows",
        "overlap",
        r"version 2 was trained \(split version yard\) on 2 of the 336 rows of the reference set of split version yard"
        ", so its score says nothing; train it again",
        (*WEAK_CHAMPION, lambda stage: stage.trained_on_reference_rows(2)),
        word="I know",
    ),
    Situation(
        "a champion that was trained on reference rows",
        "overlap",
        r"the champion, version 1, was trained .* on 2 of the 336 rows .*, so it looks better than it is; use a",
        (*WEAK_CHAMPION, lambda stage: stage.trained_on_reference_rows(1)),
    ),
    Situation(
        "a champion that was trained on reference rows, and a person's word",
        "better",
        "beats version 1 with .*; a person says of what is in doubt: better all the same",
        (*WEAK_CHAMPION, lambda stage: stage.trained_on_reference_rows(1)),
        word="better all the same",
    ),
    Situation(
        "a candidate that is too good",
        "too_good",
        "version 2 may know what it is to predict: column 'load_pu' is the target; leave the column out, or promote",
        (*WEAK_CHAMPION, lambda stage: stage.doubt(2)),
    ),
    Situation(
        "a candidate that is too good, and a person's word",
        "better",
        "a person says of what is in doubt: the plan is known a day ahead",
        (*WEAK_CHAMPION, lambda stage: stage.doubt(2)),
        word="the plan is known a day ahead",
    ),
    Situation("the champion itself", "current", "version 2 is in production already", STRONG_CHAMPION),
    Situation("an older version", "older", "version 1 is older than the champion, version 2", STRONG_CHAMPION, 1),
    Situation(
        "older data",
        "older",
        r"version 2 was trained on rows up to 2024-01-31.*, but the champion, version 1, on rows up to 2024-02-20",
        (
            *WEAK_CHAMPION,
            lambda stage: stage.trained_until(1, "2024-02-20"),
            lambda stage: stage.trained_until(2, "2024-01-31"),
        ),
    ),
    Situation(
        "newer data",
        "better",
        "beats version 1",
        (
            *WEAK_CHAMPION,
            lambda stage: stage.trained_until(1, "2024-01-31"),
            lambda stage: stage.trained_until(2, "2024-02-20"),
        ),
    ),
    Situation(
        "another metric than the candidate's baselines were scored with",
        "incomparable",
        "lacks the metric 'baseline_repeat_last_reference_rmse'; train again",
        WEAK_CHAMPION,
        config={"metric": "rmse", "extra_metrics": ()},
    ),
    Situation(
        "a champion with another task",
        "incomparable",
        "cannot be compared: its task is regression instead of forecast",
        (*WEAK_CHAMPION, lambda stage: stage.change_contract(1, task="regression")),
    ),
    Situation(
        "a champion with another horizon",
        "incomparable",
        "it predicts top_oil_c over 3 steps instead of top_oil_c over 6; register what changed under a new",
        (*WEAK_CHAMPION, lambda stage: stage.change_contract(1, horizon=3)),
    ),
    Situation(
        "a champion with other targets",
        "incomparable",
        "it predicts hot_spot_c over 6 steps instead of top_oil_c over 6",
        (*WEAK_CHAMPION, lambda stage: stage.change_contract(1, targets=("hot_spot_c",))),
    ),
    Situation(
        "a champion that looks back further than there are rows",
        "incomparable",
        r"it looks back 506 steps, \d+ more than the reference set has",
        (*WEAK_CHAMPION, lambda stage: stage.change_contract(1, lookback=500)),
    ),
    Situation(
        "a champion that reads a column there is not any more",
        "incomparable",
        "it reads pressure, which the reference set does not have",
        (*WEAK_CHAMPION, lambda stage: stage.change_contract(1, columns=("load_pu", "pressure"))),
    ),
    Situation(
        "better on three samples alone",
        "uncertain",
        r"may beat version 2 with [\d.]+ by luck: better with probability 0\.[\d]+ .*, and the policy needs 0\.99",
        (*STRONG_CHAMPION, lambda stage: stage.err_thrice(2)),
        candidate=3,
        policy={"min_probability": 0.99},
    ),
    Situation(
        "a drift retraining on a feed that changed its unit",
        "broken_column",
        r"drift \(feature:load_pu\) asked .* 'ambient_c' seems to be in another unit \(Celsius to Kelvin\)",
        (
            *WEAK_CHAMPION,
            lambda stage: stage.retrained_for_drift(2),
            lambda stage: stage.judged_before(1, lambda rows: rows.assign(ambient_c=rows["ambient_c"] - 273.15)),
        ),
    ),
    Situation(
        "a training by hand on a feed that changed its unit",
        "broken_column",
        r"version 2 was trained or judged on rows of a broken feed: column 'ambient_c' seems to be in another unit",
        (
            *WEAK_CHAMPION,
            lambda stage: stage.judged_before(1, lambda rows: rows.assign(ambient_c=rows["ambient_c"] - 273.15)),
        ),
    ),
    Situation(
        "a drift retraining on a feed that works",
        "better",
        r"beats version 1 with [\d.]+; better with probability 1 \(difference",
        (
            *WEAK_CHAMPION,
            lambda stage: stage.retrained_for_drift(2),
            lambda stage: stage.judged_before(1, lambda rows: rows),
        ),
    ),
    Situation(
        "a dry run of a better candidate",
        "better",
        "beats version 1 .*; this is a dry run, so nothing changes",
        WEAK_CHAMPION,
        policy={"dry_run": True},
    ),
)


@pytest.fixture
def stage(stocked: PairStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    stage = Stage(stocked, monkeypatch, [])
    yield stage
    for undo in stage.undo:
        undo()


@pytest.mark.parametrize("situation", SITUATIONS, ids=[situation.name for situation in SITUATIONS])
def test_the_gate_s_decision_and_its_reason(situation: Situation, stage: Stage, trained_yard: Yard) -> None:
    for step in situation.steps:
        step(stage)
    # Resolving notices a torn pair, too; the gate must when it was torn after that.
    versions = stage.store.client.get_model_version(f"{EXPERIMENT}_model", str(situation.candidate))
    candidate = PairInfo.of_version(EXPERIMENT, versions)
    config: ExperimentConfig = trained_yard.config
    policy = config.promotion.model_copy(update=dict(situation.policy))
    config = config.model_copy(update={**situation.config, "promotion": policy})
    now = dt.datetime.now(dt.UTC) + dt.timedelta(hours=situation.hours)
    report = run_gate(config, candidate, stage.store, now, situation.word)
    decision = report.decision
    assert decision.outcome == situation.outcome, decision.reason
    assert re.search(situation.reason, decision.reason), decision.reason
    assert decision.promote is (situation.outcome in ("first", "better"))
    assert decision.acts is (decision.promote and not policy.dry_run)
    assert decision.is_error is (situation.outcome == "damaged")


def test_every_outcome_has_a_situation() -> None:
    assert len(SITUATIONS) == len({situation.name for situation in SITUATIONS})
    # Being worse on an older reference set takes two of them: `test_decision`.
    assert {situation.outcome for situation in SITUATIONS} == set(get_args(Outcome)) - {"worse_before"}
