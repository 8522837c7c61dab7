"""What a training run leaves in MLflow: configuration, data hashes, scores, study and plots.

What writes, writes to the active MLflow run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mlplatform.candidates import Candidate
from mlplatform.config import ExperimentConfig
from mlplatform.datamodule import SplitManifest
from mlplatform.registry.runs.entries import log_params, log_scores, set_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Where the pictures of a run lie among its artifacts.
PLOTS = "plots"


def record_candidate(
    candidate: Candidate,
    manifest: SplitManifest,
    dvc_hashes: Mapping[str, str],
    journal: Path,
    plots: Mapping[str, bytes],
) -> None:
    """Record a finished training.

    Parameters:
        dvc_hashes: DVC's hash of every split file, by file name.
        journal: the study's Optuna journal.
    """
    import mlflow

    config, report = candidate.config, candidate.report
    params = {
        **config_params(config),
        "iterations": list(report.iterations),
        **{f"model.{name}": value for name, value in report.params.items()},
    }
    log_params(params)
    curves = {f"curve_{fit}_{name}": steps for fit, each in report.curves.items() for name, steps in each.items()}
    log_scores(report.metrics(), curves)
    losses = report.losses(config.metric)
    mlflow.set_tag("loses_to_baseline", "; ".join(losses) or "no")
    models = {config.model.family: report.candidate, **report.baselines}
    mlflow.log_dict({name: model.steps for name, model in models.items()}, "scores_per_step.json")
    mlflow.log_dict({name: model.entities for name, model in models.items()}, "scores_per_entity.json")
    for part, statistics in manifest.parts.items():
        values = statistics.statistics(config.targets)
        log_params({f"data.{part}.{key}": value for key, value in values.items()})
    set_tags({f"data.{part}.sha256": statistics.sha256 for part, statistics in manifest.parts.items()})
    set_tags({f"dvc.{name.removesuffix('.parquet')}": value for name, value in dvc_hashes.items()})
    mlflow.log_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), "config.yaml")
    mlflow.log_dict(_schema(candidate), "feature_schema.json")
    mlflow.log_dict({"trials": list(report.trials)}, "trials.json")
    mlflow.log_artifact(str(journal), "study")
    for name, png in plots.items():
        _log_png(png, f"{name}.png")


def read_plots(client: MlflowClient, run_id: str) -> dict[str, bytes]:
    """Return the pictures that the training left in a run, by name; none if there are none any more."""
    import tempfile

    paths = [file.path for file in client.list_artifacts(run_id, PLOTS)]
    with tempfile.TemporaryDirectory() as folder:
        return {Path(path).stem: Path(client.download_artifacts(run_id, path, folder)).read_bytes() for path in paths}


def config_params(config: ExperimentConfig) -> dict[str, Any]:
    """Return what runs are told apart by in MLflow's lists."""
    return {
        **config.versions,
        "experiment": config.name,
        "dataset": config.dataset.name,
        "family": config.model.family,
        "targets": ",".join(config.targets),
        "lookback": config.lookback,
        "horizon": config.horizon,
        "seed": config.seed,
        "folds": config.split.folds,
    }


def _schema(candidate: Candidate) -> dict[str, Any]:
    columns = candidate.config.dataset.columns
    return {
        "features": {name: columns[name].model_dump() for name in candidate.config.features.columns},
        "targets": {name: columns[name].model_dump() for name in candidate.config.targets},
    }


def _log_png(png: bytes, name: str) -> None:
    import tempfile

    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(png)
        mlflow.log_artifact(str(path), PLOTS)
