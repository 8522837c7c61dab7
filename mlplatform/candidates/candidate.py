"""A training run from prepared folds to a fitted, scored candidate beside its baselines."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlplatform.config import ExperimentConfig, parse_experiment
from mlplatform.datamodule import DataModule, ModelSpec, Samples
from mlplatform.models import (
    Calibration,
    FitOptions,
    Iterations,
    Model,
    changes_of,
    create_model,
    load_model,
    save_model,
)
from mlplatform.plugins import METRICS
from mlplatform.preprocessing import TransformManager
from mlplatform.training import (
    FoldData,
    PartScores,
    RunCheckpoints,
    fit_preprocessor,
    scales_for,
    score_part,
    trainer_for,
)
from mlplatform.tuning import FittedTrial, fit_on_folds, tune, unseen_bounds

REPORT_FILE = "report.json"


@dataclass(frozen=True)
class ModelReport:
    """Scores of one model, candidate or baseline.

    Attributes:
        folds: metrics per fold, in original units.
        parts: `reference` and `test_<name>` -> metrics; those ending in `_scaled` are in preprocessed space.
        steps: part -> metric -> one value per step of the horizon (forecasts only).
        entities: part -> entity -> metrics (forecasts of more than one entity only).
    """

    folds: tuple[dict[str, float], ...]
    parts: dict[str, dict[str, float]]
    steps: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    entities: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    @classmethod
    def of(cls, folds: tuple[dict[str, float], ...], parts: Mapping[str, PartScores]) -> ModelReport:
        """Return the report of a model scored on folds and parts."""
        return cls(
            folds,
            {name: part.metrics for name, part in parts.items()},
            {name: part.steps for name, part in parts.items() if part.steps},
            {name: part.entities for name, part in parts.items() if part.entities},
        )

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
        curves: `refit` and `fold_<k>` -> series by name, one value per iteration, of the tuned model.
    """

    params: dict[str, Any]
    iterations: Iterations
    candidate: ModelReport
    baselines: dict[str, ModelReport]
    trials: tuple[dict[str, Any], ...]
    fit_seconds: float
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def beside_baselines(self, metric: str) -> list[str]:
        """Return one line per baseline: where the candidate beats it and where it does not, on folds and parts."""
        lines = []
        for name, baseline in self.baselines.items():
            found: dict[bool, list[str]] = {True: [], False: []}
            for key, own, other, beaten in self._against(baseline, metric):
                found[beaten].append(f"{key} {own:.5g} against {other:.5g}")
            words = {True: f"beats the baseline {name}", False: f"loses to the baseline {name}"}
            lines.append("; ".join(f"{words[beaten]}: {', '.join(each)}" for beaten, each in found.items() if each))
        return [line for line in lines if line]

    def losses(self, metric: str) -> list[str]:
        """Return one line per baseline that is at least as good as the candidate, on the folds or a part."""
        return [
            f"loses to the baseline {name}: {key} {own:.5g} against {other:.5g}"
            for name, baseline in self.baselines.items()
            for key, own, other, beaten in self._against(baseline, metric)
            if not beaten
        ]

    def _against(self, baseline: ModelReport, metric: str) -> Iterator[tuple[str, float, float, bool]]:
        """Yield score by score its name, the candidate's value, the baseline's, and whether the candidate's is better.

        A score that is not a number beats nothing.
        """
        better = METRICS.get(metric)
        own, other = self.candidate.metrics(), baseline.metrics()
        for key in (f"cv_{metric}_mean", *(f"{part}_{metric}" for part in baseline.parts)):
            if key in own and key in other:
                yield key, own[key], other[key], better.loss(own[key]) < better.loss(other[key])

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
            config=parse_experiment(document["config"]),
            manager=TransformManager.load(folder / "preprocessor"),
            model=load_model(folder / "model"),
            report=_report_from(document["report"]),
            run_id=document["run_id"],
        )


def answerable(part: str, module: DataModule, log: logging.Logger | None = None) -> DataModule:
    """Return a held-out part with only the samples that a server could be asked for, and say whose are missing.

    Training and gate score these: a window without its preprocessing context would be answered otherwise when served.
    """
    config = module.config
    context = TransformManager.for_experiment(config).context
    needed = config.reach + context if config.task == "forecast" else 1
    chosen = module.with_history(needed)
    if chosen.left_out:
        found = ", ".join(f"{entity} ({rows} rows)" for entity, rows in chosen.left_out.items())
        (log or logging.getLogger(__name__)).warning(
            f"{part}: nothing is forecast for {found}: a forecast needs {config.lookback + context} rows up to its "
            f"origin and {config.horizon} observed ones after it"
        )
    return chosen


def train_candidate(
    config: ExperimentConfig,
    train: DataModule,
    folds: Sequence[FoldData],
    held_out: Mapping[str, DataModule],
    journal: Path,
    log: logging.Logger | None = None,
    checkpoints: RunCheckpoints | None = None,
) -> Candidate:
    """Tune on the folds, refit on all training rows, score on the held-out parts, and do the same for the baselines.

    Parameters:
        train: all training rows.
        folds: the prepared folds of those rows.
        held_out: what to score on, by name: of a split, `reference` and any `test_<name>`, see `answerable`.
        journal: file of the study's Optuna journal. A study found there goes on: a step that was killed and is run
            again keeps its finished trials.
        checkpoints: where study and fits keep their state, so that a killed run does not lose it. The caller clears
            them when it has stored what this returns.
    """
    log = log or logging.getLogger(__name__)
    manager = fit_preprocessor(train, np.arange(train.panel.rows))
    if config.task == "forecast":
        log.info(_lengths(config, train, manager))
    tuning = tune(config, folds, journal, log, checkpoints)
    log.info(f"{tuning.counts}; pruning saved {tuning.saved_share:.0%} of the study's compute")
    # Transformed and cut once, for the candidate and every baseline.
    samples, spec = train.samples(manager, manager.transform(train.panel), train.rows), train.spec(manager)
    scales = scales_for(config, train.panel)
    model, refit_curves, seconds = _refit(config, samples, spec, config.model.family, tuning.best, checkpoints)
    seconds += tuning.fit_seconds
    calibrate(config, model, folds, config.model.family, tuning.best, log)
    scores = {part: score_part(module, manager, model, scales) for part, module in held_out.items()}
    log.info(f"{config.model.family}: {_describe(config, tuning.best.mean(config.metric), scores)}")

    baselines = {}
    for baseline in config.baselines:
        params = dict(baseline.params)
        trial = fit_on_folds(config, folds, baseline.name, params, checkpoints=checkpoints)
        fitted, _, refit_seconds = _refit(config, samples, spec, baseline.name, trial, checkpoints)
        seconds += trial.fit_seconds + refit_seconds
        calibrate(config, fitted, folds, baseline.name, trial, log)
        parts = {part: score_part(module, manager, fitted, scales) for part, module in held_out.items()}
        baselines[baseline.name] = ModelReport.of(trial.fold_scores, parts)
        log.info(f"baseline {baseline.name}: {_describe(config, trial.mean(config.metric), parts)}")

    report = CandidateReport(
        params=tuning.best.params,
        iterations=tuning.best.iterations(),
        candidate=ModelReport.of(tuning.best.fold_scores, scores),
        baselines=baselines,
        trials=tuning.trials,
        fit_seconds=seconds,
        curves={"refit": refit_curves, **_fold_curves(tuning.best)},
    )
    for line in report.losses(config.metric):
        log.warning(f"{config.model.family} {line}")
    return Candidate(config, manager, model, report)


def _lengths(config: ExperimentConfig, train: DataModule, manager: TransformManager) -> str:
    """Return what the run works with, whether it was given or derived, in words."""
    series = len(train.panel.entity_ids)
    scaled = "windows scaled one by one" if manager.windowed else "one scale for all"
    return (
        f"{series} series of season {config.season}, {scaled}; lookback {config.lookback}, horizon {config.horizon}, "
        f"{config.split.folds} folds, reference set of {config.split.reference_steps} steps"
    )


def _refit(
    config: ExperimentConfig,
    samples: Samples,
    spec: ModelSpec,
    family: str,
    trial: FittedTrial,
    checkpoints: RunCheckpoints | None,
) -> tuple[Model, dict[str, list[float]], float]:
    """Fit on all training rows for the iterations that cross-validation found; return model, curves and seconds."""
    model = create_model(family, trial.params, spec)
    started = time.perf_counter()
    options = FitOptions(iterations=trial.iterations(), seed=config.seed)
    if checkpoints is not None:
        options = checkpoints.of_fit(options, "refit", family, trial.params)
    result = trainer_for(model).fit(model, samples, None, options)
    seconds = time.perf_counter() - started
    return model, {name: list(values) for name, values in result.curves.items()}, seconds


def calibrate(
    config: ExperimentConfig,
    model: Model,
    folds: Sequence[FoldData],
    family: str,
    trial: FittedTrial,
    log: logging.Logger,
) -> None:
    """Give a refitted model prediction intervals, from what the folds' models predicted for rows they had not seen.

    Too few held-out samples leave it without intervals, or without those of some coverages, and the log says so.
    """
    coverages = config.uncertainty.coverages
    if not coverages or not trial.bounds:
        return
    bounds = unseen_bounds(config, folds, family, trial) if config.uncertainty.leave_out_folds else trial.bounds
    held_out = [(fold.validation, each) for fold, each in zip(folds, bounds, strict=True)]
    kind, season = changes_of(model.spec), config.season if config.task == "forecast" else 0
    try:
        if config.uncertainty.calibration == "auto":
            is_raised = config.uncertainty.leave_out_folds
            model.calibration = Calibration.chosen(held_out, *coverages, season=season, is_raised=is_raised, kind=kind)
        else:
            model.calibration = Calibration.fit(held_out, *coverages, kind=kind, season=season)
    except ValueError as error:
        log.warning(f"no prediction intervals: {error}")
        return
    if missing := sorted({*coverages} - {*model.calibration.coverages}):
        log.warning(
            f"no prediction intervals of coverage {', '.join(map(str, missing))}: {model.calibration.samples} held-out "
            "samples are too few"
        )


def _fold_curves(trial: FittedTrial) -> dict[str, dict[str, list[float]]]:
    return {
        f"fold_{k}": {name: list(values) for name, values in curves.items()} for k, curves in enumerate(trial.curves)
    }


def _describe(config: ExperimentConfig, cross_validated: float, parts: Mapping[str, PartScores]) -> str:
    scores = ", ".join(f"{part} {values.metrics[config.metric]:.5g}" for part, values in parts.items())
    return f"{config.metric} cv {cross_validated:.5g}, {scores}"


def _plain(report: CandidateReport) -> dict[str, Any]:
    return {
        **vars(report),
        "candidate": vars(report.candidate),
        "baselines": {name: vars(baseline) for name, baseline in report.baselines.items()},
    }


def _report_from(values: dict[str, Any]) -> CandidateReport:
    def model_report(document: dict[str, Any]) -> ModelReport:
        return ModelReport(**{**document, "folds": tuple(document["folds"])})

    return CandidateReport(
        params=values["params"],
        iterations=tuple(values["iterations"]),
        candidate=model_report(values["candidate"]),
        baselines={name: model_report(document) for name, document in values["baselines"].items()},
        trials=tuple(values["trials"]),
        fit_seconds=values["fit_seconds"],
        curves=values["curves"],
    )
