"""Training from the command line, twice: the first run promotes, the second reuses the reference set and does not."""

from __future__ import annotations

import html
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from dagster import AssetCheckSeverity, DagsterInstance, DagsterRunStatus
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation

from mlplatform.datamodule.panel import Panel
from mlplatform.datamodule.splits import read_manifest, read_part, split_dir
from mlplatform.promotion.active_config import active_config_path
from mlplatform.registry.pairs import PRODUCTION
from mlplatform.registry.tracking import client_for
from mlplatform.settings import PACKAGE_ROOT
from mlplatform.testing import forks
from mlplatform.testing.yard import EXPERIMENT, TRAIN, Yard

pytestmark = pytest.mark.integration

METRICS = ("mae", "rmse")
BASELINES = ("repeat_last", "seasonal_naive", "ridge")


@dataclass(frozen=True)
class CommandLineRun:
    """What one `dagster job execute` left behind.

    Attributes:
        reference: bytes and time of the last change of the reference set.
        production: version behind the alias afterwards.
    """

    output: str
    reference: tuple[bytes, int]
    production: int
    active_config: str


@dataclass(frozen=True)
class Twice:
    """An installation after two identical training runs."""

    yard: Yard
    runs: tuple[CommandLineRun, CommandLineRun]

    @property
    def mlflow_runs(self) -> list[Any]:
        """The MLflow runs, earliest first."""
        client = client_for(self.yard.settings)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


def reference_path(yard: Yard) -> Path:
    return split_dir(yard.settings, "yard", "yard") / "reference.parquet"


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Twice:
    yard = Yard.create(tmp_path_factory.mktemp("twice"), mlflow_database)
    dagster_home = yard.settings.home / "dagster"
    dagster_home.mkdir()
    (dagster_home / "dagster.yaml").write_text((PACKAGE_ROOT.parent / "dagster.yaml").read_text())
    command = ["dagster", "job", "execute", "-m", "mlplatform.definitions", "-j", TRAIN]
    environ = {**yard.environ, "DAGSTER_HOME": str(dagster_home)}
    # The first as a shell starts it; the second need not import everything once more.
    first = subprocess.run(
        [Path(sys.executable).with_name(command[0]), *command[1:]],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    left = left_behind(yard, first)
    return Twice(yard, (left, left_behind(yard, forks.run(command, environ=environ))))


def left_behind(yard: Yard, answer: subprocess.CompletedProcess[str]) -> CommandLineRun:
    output = answer.stdout + answer.stderr
    assert answer.returncode == 0, output[-5000:]
    path = reference_path(yard)
    return CommandLineRun(
        output=output,
        reference=(path.read_bytes(), path.stat().st_mtime_ns),
        production=yard.pairs.resolve(EXPERIMENT, PRODUCTION).version,
        active_config=active_config_path(EXPERIMENT, yard.settings).read_text(),
    )


def test_the_first_run_promotes_and_the_second_does_not(twice: Twice) -> None:
    assert [run.production for run in twice.runs] == [1, 1]
    assert twice.yard.pairs.resolve(EXPERIMENT, "latest").version == 2
    first, second = (run.data.tags for run in twice.mlflow_runs)
    assert (first["promotion.promote"], first["promotion.outcome"], first["pair_version"]) == ("true", "first", "1")
    assert (second["promotion.promote"], second["promotion.outcome"], second["pair_version"]) == (
        "false",
        "not_better",
        "2",
    )
    assert "does not beat version 1" in second["promotion.reason"]


def test_both_dagster_runs_succeed_and_the_gate_only_warns(twice: Twice) -> None:
    with DagsterInstance.from_config(str(twice.yard.settings.home / "dagster")) as instance:
        runs = sorted(instance.get_run_records(), key=lambda record: record.create_timestamp)
        assert [record.dagster_run.status for record in runs] == [DagsterRunStatus.SUCCESS] * 2
        checks = [_checks(instance, record.dagster_run.run_id) for record in runs]
    found = {"too_good", "leakage", "serving_parity", "pair_integrity", "beats_baseline", "promotion_gate"}
    assert set(checks[0]) == found
    assert all(check.passed for check in checks[0].values())
    gate = checks[1].pop("promotion_gate")
    assert not gate.passed
    assert gate.severity == AssetCheckSeverity.WARN
    assert "does not beat version 1" in (gate.description or "")
    assert all(check.passed for check in checks[1].values())


def _checks(instance: DagsterInstance, run_id: str) -> dict[str, AssetCheckEvaluation]:
    events = [entry.dagster_event for entry in instance.all_logs(run_id) if entry.dagster_event]
    found = [
        event.asset_check_evaluation_data for event in events if event.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    return {check.check_name: check for check in found}


def test_the_reference_set_is_not_written_again(twice: Twice) -> None:
    assert twice.runs[0].reference == twice.runs[1].reference


def test_scores_are_the_same_to_the_last_digit(twice: Twice) -> None:
    first, second = ({**run.data.metrics} for run in twice.mlflow_runs)
    for metrics in (first, second):
        assert metrics.pop("fit_seconds") > 0
    assert first == second


def test_predictions_are_the_same_bits(twice: Twice) -> None:
    store = twice.yard.pairs
    pairs = [store.load(store.resolve(EXPERIMENT, version)) for version in ("1", "2")]
    rows = read_part(twice.yard.settings, "yard", "yard", "reference")
    first, second = (pair.predict(Panel.from_frame(rows, pair.contract.columns)) for pair in pairs)
    np.testing.assert_array_equal(first.view(np.uint32), second.view(np.uint32))
    infos = [store.resolve(EXPERIMENT, version) for version in ("1", "2")]
    assert infos[0].model_digest == infos[1].model_digest
    assert infos[0].preprocessor_digest == infos[1].preprocessor_digest


def test_mlflow_holds_the_whole_record(twice: Twice) -> None:
    for run in twice.mlflow_runs:
        assert run.info.status == "FINISHED"
    run = twice.mlflow_runs[0]
    expected = {f"fold_{k}_{metric}" for k in range(2) for metric in METRICS}
    expected |= {f"cv_{metric}_{kind}" for metric in METRICS for kind in ("mean", "std")}
    intervals = ("coverage", "interval_score", "interval_width", "pinball")
    expected |= {f"reference_{metric}{suffix}" for metric in (*METRICS, *intervals) for suffix in ("", "_scaled")}
    expected |= {f"baseline_{name}_{metric}" for name in BASELINES for metric in set(expected)}
    expected |= {f"curve_fold_{k}_validation_loss" for k in range(2)}
    assert set(run.data.metrics) == expected | {"fit_seconds"}
    folds = [run.data.metrics[f"fold_{k}_mae"] for k in range(2)]
    assert run.data.metrics["cv_mae_mean"] == pytest.approx(np.mean(folds))
    assert (
        run.data.params.items()
        >= {
            "split_version": "yard",
            "feature_version": "yard",
            "model_version": "yard",
            "dataset": "yard",
            "family": "xgboost",
            "lookback": "24",
            "horizon": "6",
            "seed": "0",
            "model.num_boost_round": "15",
            "data.reference.rows": "336",
            "data.reference.entities": "2",
        }.items()
    )
    manifest = read_manifest(twice.yard.settings, "yard", "yard")
    for part, statistics in manifest.parts.items():
        assert run.data.tags[f"data.{part}.sha256"] == statistics.sha256
        assert run.data.params[f"data.{part}.top_oil_c.mean"] == str(statistics.columns["top_oil_c"]["mean"])
    assert run.data.tags["experiment"] == EXPERIMENT
    assert len(run.data.tags["dagster_run_id"]) == 36
    artifacts = {entry.path for entry in client_for(twice.yard.settings).list_artifacts(run.info.run_id)}
    assert {"config.yaml", "feature_schema.json", "trials.json", "study", "plots", "promotion.json"} <= artifacts
    assert {"scores_per_step.json", "scores_per_entity.json", "lineage"} <= artifacts
    assert run.data.tags["loses_to_baseline"] == "no" or "loses to the baseline" in run.data.tags["loses_to_baseline"]


def test_a_page_shows_each_run_and_what_became_of_its_pair(twice: Twice) -> None:
    client, run_1, run_2 = client_for(twice.yard.settings), *twice.mlflow_runs
    for version, run, verdict in ((1, run_1, "Promoted: "), (2, run_2, "Not promoted: ")):
        page = client.download_artifacts(run.info.run_id, "report.html")
        text = html.unescape(Path(page).read_text())
        assert f"<h1>{EXPERIMENT} version {version}</h1>" in text
        assert f"<strong>{verdict}{run.data.tags['promotion.reason']}" in text
        for picture in ("forecast", "scores", "candidate against champion"):
            assert f'<img alt="{picture}" src="data:image/png;base64,' in text
        for name in BASELINES:
            outcomes = (f"{word} the baseline {name}" for word in ("beats", "loses to"))
            assert f"<td>baseline {name}</td>" in text or any(outcome in text for outcome in outcomes)


def test_versions_and_where_they_come_from_are_in_log_and_tags(twice: Twice) -> None:
    for command, run, source in zip(
        twice.runs, twice.mlflow_runs, ("the experiment's YAML", "active_config.yaml"), strict=True
    ):
        for key in ("split_version", "feature_version", "model_version"):
            assert f"{key} yard (from: {source})" in command.output
            assert (run.data.tags[key], run.data.tags[f"{key}.source"]) == ("yard", source)


def test_a_run_prints_its_steps_its_scores_and_the_decision(twice: Twice) -> None:
    for command, decision in zip(twice.runs, ("promoted: ", "not promoted: "), strict=True):
        printed = command.output.splitlines()
        assert len([line for line in printed if " done in " in line]) == 16
        assert any(line.startswith("    xgboost: mae cv ") for line in printed)
        for name in BASELINES:
            assert any(line.startswith(f"    baseline {name}: mae cv ") for line in printed)
        assert any(line.startswith(f"    {decision}reference_mae ") for line in printed)
        assert f"{TRAIN} succeeded" in printed
        assert not any(" - DEBUG - " in line or " - INFO - " in line for line in printed)


def test_dvc_s_hashes_are_in_mlflow(twice: Twice) -> None:
    tags = twice.mlflow_runs[0].data.tags
    for part in ("train", "reference"):
        pointer = yaml.safe_load(reference_path(twice.yard).with_name(f"{part}.parquet.dvc").read_text())
        assert tags[f"dvc.{part}"] == pointer["outs"][0]["md5"]


def test_the_active_configuration_is_that_of_the_promoted_run(twice: Twice) -> None:
    first, second = (run.active_config for run in twice.runs)
    assert first == second
    document = yaml.safe_load(first)
    assert document.pop("promoted_at")
    assert document == {
        "split_version": "yard",
        "feature_version": "yard",
        "model_version": "yard",
        "pair_version": 1,
    }


def test_the_model_beats_every_baseline_it_is_shown_beside(twice: Twice) -> None:
    metrics = twice.mlflow_runs[0].data.metrics
    table = pd.Series({name: metrics[f"baseline_{name}_reference_mae"] for name in BASELINES})
    assert metrics["reference_mae"] < table.min()
