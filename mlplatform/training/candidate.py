"""A training run from prepared folds to a fitted, scored candidate beside its baselines."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule.base import DataModule
from mlplatform.datamodule.samples import Samples
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.models.base import Iterations, Model, create_model, load_model, save_model
from mlplatform.preprocessing.manager import TransformManager
from mlplatform.training.cross_validation import FoldData, fit_preprocessor
from mlplatform.training.evaluation import score_on
from mlplatform.training.trainers import trainer_for
from mlplatform.tuning.tuner import fit_on_folds, tune

REPORT_FILE = "report.json"


@dataclass(frozen=True)
class ModelReport:
    """Scores of one model, candidate or baseline.

    Attributes:
        folds: metrics per fold, in original units.
        parts: `reference` and `test_<name>` -> metrics; those ending in `_scaled` are in preprocessed space.
    """

    folds: tuple[dict[str, float], ...]
    parts: dict[str, dict[str, float]]

    def metrics(self) -> dict[str, float]:
        """Return scores by MLflow name: `fold_<k>_<m>`, `cv_<m>_mean` and `_std`, `reference_<m>`, `test_<set>_<m>`."""
        flat = {f"fold_{k}_{name}": value for k, fold in enumerate(self.folds) for name, value in fold.items()}
        for name in self.folds[0] if self.folds else ():
            values = [fold[name] for fold in self.folds]
            flat |= {f"cv_{name}_mean": float(np.mean(values)), f"cv_{name}_std": float(np.std(values))}
        for part, scores in self.parts.items():
            flat |= {f"{part}_{name}": value for name, value in scores.items()}
        return flat


@dataclass(frozen=True)
class CandidateReport:
    """All that a training run measured.

    Attributes:
        params: the chosen hyperparameters.
        iterations: boosting rounds or epochs of the refit.
        candidate: scores of the tuned model.
        baselines: scores of the baselines by name.
        trials: one row per tuning trial.
        fit_seconds: time spent fitting models, over trials, refit and baselines.
    """

    params: dict[str, Any]
    iterations: Iterations
    candidate: ModelReport
    baselines: dict[str, ModelReport]
    trials: tuple[dict[str, Any], ...]
    fit_seconds: float

    def metrics(self) -> dict[str, float]:
        """Return all scores under their MLflow names; a baseline's start with `baseline_<name>_`."""
        flat = self.candidate.metrics() | {"fit_seconds": self.fit_seconds}
        for name, report in self.baselines.items():
            flat |= {f"baseline_{name}_{metric}": value for metric, value in report.metrics().items()}
        return flat


@dataclass(frozen=True)
class Candidate:
    """A fitted preprocessor and model, with the report about them.

    Attributes:
        run_id: MLflow run that recorded the training; empty while there is none.
    """

    config: ExperimentConfig
    manager: TransformManager
    model: Model
    report: CandidateReport
    run_id: str = ""

    def save(self, folder: Path) -> None:
        """Write everything into an existing, empty folder, without pickle."""
        (folder / "preprocessor").mkdir()
        self.manager.save(folder / "preprocessor")
        save_model(self.model, self.config.model.family, folder / "model")
        document = {"config": self.config.model_dump(mode="json"), "run_id": self.run_id, "report": _plain(self.report)}
        (folder / REPORT_FILE).write_text(json.dumps(document, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Candidate:
        """Read what `save` wrote."""
        document = json.loads((folder / REPORT_FILE).read_text())
        return cls(
            config=ExperimentConfig.model_validate(document["config"]),
            manager=TransformManager.load(folder / "preprocessor"),
            model=load_model(folder / "model"),
            report=_report_from(document["report"]),
            run_id=document["run_id"],
        )


def train_candidate(
    config: ExperimentConfig,
    train: DataModule,
    folds: Sequence[FoldData],
    held_out: Mapping[str, DataModule],
    journal: Path,
    log: logging.Logger | None = None,
) -> Candidate:
    """Tune on the folds, refit on all training rows, score on the held-out parts, and do the same for the baselines.

    Parameters:
        train: all training rows.
        folds: the prepared folds of those rows.
        held_out: `reference` and any `test_<name>` parts.
        journal: file for the study's Optuna journal; it must not exist yet.
    """
    log = log or logging.getLogger(__name__)
    tuning = tune(config, folds, journal, log)
    manager = fit_preprocessor(train, np.arange(train.panel.rows))
    # Transformed and cut once, for the candidate and every baseline.
    samples, spec = train.samples(manager, manager.transform(train.panel), train.rows), train.spec(manager)
    spent = [tuning.fit_seconds]

    model = _refit(config, samples, spec, config.model.family, tuning.best.params, tuning.best.iterations(), spent)
    scores = {part: score_on(module, manager, model) for part, module in held_out.items()}
    log.info(f"{config.model.family}: {_describe(config, tuning.best.mean(config.metric), scores)}")

    baselines = {}
    for baseline in config.baselines:
        trial = fit_on_folds(config, folds, baseline.name, dict(baseline.params), spent=spent)
        fitted = _refit(config, samples, spec, baseline.name, dict(baseline.params), trial.iterations(), spent)
        parts = {part: score_on(module, manager, fitted) for part, module in held_out.items()}
        baselines[baseline.name] = ModelReport(trial.fold_scores, parts)
        log.info(f"baseline {baseline.name}: {_describe(config, trial.mean(config.metric), parts)}")

    report = CandidateReport(
        params=tuning.best.params,
        iterations=tuning.best.iterations(),
        candidate=ModelReport(tuning.best.fold_scores, scores),
        baselines=baselines,
        trials=tuning.trials,
        fit_seconds=spent[0],
    )
    return Candidate(config, manager, model, report)


def _refit(
    config: ExperimentConfig,
    samples: Samples,
    spec: ModelSpec,
    family: str,
    params: dict[str, Any],
    iterations: Iterations,
    spent: list[float],
) -> Model:
    """Fit on all training rows for the number of iterations that cross-validation found."""
    model = create_model(family, params, spec)
    started = time.perf_counter()
    trainer_for(model).fit(model, samples, None, iterations=iterations or None, seed=config.seed)
    spent[0] += time.perf_counter() - started
    return model


def _describe(config: ExperimentConfig, cross_validated: float, parts: Mapping[str, Mapping[str, float]]) -> str:
    scores = ", ".join(f"{part} {values[config.metric]:.5g}" for part, values in parts.items())
    return f"{config.metric} cv {cross_validated:.5g}, {scores}"


def _plain(report: CandidateReport) -> dict[str, Any]:
    return {
        **vars(report),
        "candidate": vars(report.candidate),
        "baselines": {name: vars(baseline) for name, baseline in report.baselines.items()},
    }


def _report_from(values: dict[str, Any]) -> CandidateReport:
    def model_report(document: dict[str, Any]) -> ModelReport:
        return ModelReport(tuple(document["folds"]), document["parts"])

    return CandidateReport(
        params=values["params"],
        iterations=tuple(values["iterations"]),
        candidate=model_report(values["candidate"]),
        baselines={name: model_report(document) for name, document in values["baselines"].items()},
        trials=tuple(values["trials"]),
        fit_seconds=values["fit_seconds"],
    )
