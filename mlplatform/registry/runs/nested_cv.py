"""What nested cross-validation leaves in MLflow: one run with the choices and scores of every outer fold.

The run lies in an MLflow experiment of its own and holds no model, and its metrics have other names than a candidate's:
nothing that looks for a candidate can take it for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import yaml

from mlplatform.candidates import OuterResult, scores
from mlplatform.config import ExperimentConfig
from mlplatform.registry.runs.candidate import config_params
from mlplatform.registry.runs.entries import log_params, log_scores, set_tags
from mlplatform.registry.runs.record import CONFIG_FILE

KIND = "kind"
NESTED_CV = "nested_cv"


def nested_cv_experiment(name: str) -> str:
    """Return the MLflow experiment of an experiment's nested cross-validation."""
    return f"{NESTED_CV}_{name}"


def record_nested_cv(
    config: ExperimentConfig, results: Mapping[str, OuterResult], train_sha256: str, journals: Sequence[Path]
) -> None:
    """Record finished outer folds in the active MLflow run.

    Parameters:
        results: outer fold -> result; some of the folds, if the run was asked for some.
        train_sha256: of the training rows.
        journals: of the inner studies.
    """
    import mlflow

    params = config_params(config) | {"outer_folds": config.nested.outer_folds}
    for name, result in results.items():
        params |= {f"{name}.{key}": value for key, value in result.params.items()}
        for key in ("iterations", "train_samples", "test_samples", "trials"):
            params[f"{name}.{key}"] = getattr(result, key)
    log_params(params)
    log_scores(scores(list(results.values())))
    set_tags(
        {
            KIND: NESTED_CV,
            "experiment": config.name,
            "nested_cv.folds": ",".join(results),
            "nested_cv.complete": str(set(results) == set(config.nested.fold_names)).lower(),
            "data.train.sha256": train_sha256,
        }
    )
    mlflow.log_dict({name: asdict(result) for name, result in results.items()}, "outer_folds.json")
    mlflow.log_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), CONFIG_FILE)
    for journal in journals:
        mlflow.log_artifact(str(journal), "studies")
