"""The tuned model: a training run from folds to a fitted, scored candidate, recorded in MLflow."""

from pathlib import Path
from typing import Any

from dagster import AssetExecutionContext, AssetsDefinition, MetadataValue, Output

from mlplatform.candidates import Candidate, ModelReport
from mlplatform.config import ExperimentConfig
from mlplatform.datamodule import StoredFold
from mlplatform.defs.assets.inputs import (
    check_folds,
    load_held_out,
    load_rows,
    log_versions,
    refuse_broken_data,
    too_good_evidence,
)
from mlplatform.defs.assets.owned import owned_asset
from mlplatform.defs.keys import CV_FOLDS, DRIFT_CAUSE_TAG, FOLD_PREPROCESSOR, TUNED_MODEL
from mlplatform.defs.metadata import picture, run_link, table
from mlplatform.defs.resources import MlflowResource, PlatformResource, TrainingResource
from mlplatform.defs.versions import data_version, training_part
from mlplatform.plugins import METRICS
from mlplatform.preprocessing import TransformManager
from mlplatform.settings import Settings

ENTITIES_SHOWN = 20


def tuned_model_asset(experiment: ExperimentConfig) -> AssetsDefinition:
    """Return the tuned-model asset of an experiment."""

    @owned_asset(
        experiment,
        TUNED_MODEL,
        reads=(CV_FOLDS, FOLD_PREPROCESSOR),
        kinds={"optuna", "mlflow"},
        description=experiment.description or _description(experiment),
        decided_by=training_part(experiment),
    )
    def tuned_model(
        context: AssetExecutionContext,
        platform: PlatformResource,
        training: TrainingResource,
        mlflow: MlflowResource,
        cv_folds: dict[str, StoredFold],
        fold_preprocessor: dict[str, TransformManager],
    ) -> Output[Candidate]:
        from dataclasses import replace

        from mlplatform.candidates import train_candidate, training_plots
        from mlplatform.datamodule import TRAIN, TrainingRows, create_data_module, read_manifest, split_dir, track
        from mlplatform.promotion import DRIFT_CAUSE, LEAKAGE, TOO_GOOD, find_finding
        from mlplatform.registry.pairs import tag_name
        from mlplatform.registry.runs import record_candidate, record_training_rows
        from mlplatform.training import RunCheckpoints, check_demands, find_too_good, prepare_fold

        settings = platform.settings
        config = log_versions(context, experiment.name, training, settings)
        # Again: a report may have found a break since the folds were made.
        refuse_broken_data(context, config, training, settings)
        check_folds(config, cv_folds)
        manifest = read_manifest(settings, config.dataset.name, config.split.version_id)
        rows = load_rows(config, settings, TRAIN)
        train, held_out = create_data_module(config, rows), load_held_out(config, settings, context.log)
        # In the order of the folds: as text, fold_10 would come before fold_2.
        names = config.split.fold_names
        # Again: the folds stay when another metric is chosen.
        check_demands(train, {name: cv_folds[name].fold for name in names}, held_out)
        folder = split_dir(settings, config.dataset.name, config.split.version_id)
        hashes = track(settings, [folder / f"{part}.parquet" for part in manifest.parts])
        folds = [prepare_fold(name, train, cv_folds[name].fold, fold_preprocessor[name]) for name in names]
        journal = settings.studies_dir / config.name / f"{context.run.run_id}.journal"
        checkpoints = RunCheckpoints.of(settings, config, manifest.parts[TRAIN].sha256)
        with mlflow.run(context, settings, config.name) as run:
            candidate = train_candidate(config, train, folds, held_out, journal, context.log, checkpoints)
            candidate = replace(candidate, run_id=run.mlflow_run_id)
            plots = training_plots(candidate, held_out["reference"])
            record_candidate(candidate, manifest, hashes, journal, plots)
            record_training_rows(TrainingRows.of(config.dataset, manifest, rows))
            sources = training.sources(config.name, settings)
            run.set_tags(config.versions)
            run.set_tags({f"{key}.source": source for key, source in sources.items()})
            if DRIFT_CAUSE_TAG in context.run.tags:
                run.set_tag(DRIFT_CAUSE, context.run.tags[DRIFT_CAUSE_TAG])
            leakage = find_finding(settings, config, LEAKAGE, manifest.parts[TRAIN].sha256, names)
            if leakage is not None:
                run.set_tag(tag_name(LEAKAGE), leakage.to_tag())
            too_good = find_finding(settings, config, TOO_GOOD, manifest.parts[TRAIN].sha256)
            run.set_tag(tag_name(TOO_GOOD), (too_good or too_good_evidence(find_too_good(train))).to_tag())
        checkpoints.clear()
        # The run and not the model's bits: the pair of another run is another pair, even of an equal model.
        version = data_version(candidate.run_id)
        return Output(candidate, metadata=_metadata(candidate, plots, journal, settings), data_version=version)

    return tuned_model


def _description(experiment: ExperimentConfig) -> str:
    ahead = f", {experiment.horizon} steps ahead" if experiment.task == "forecast" else ""
    targets, dataset = ", ".join(experiment.targets), experiment.dataset.name
    return f"{experiment.task.capitalize()} of {targets} of {dataset}{ahead}, by {experiment.model.family}."


def _worst_entities(report: ModelReport, metric: str) -> list[dict[str, Any]]:
    """Return the scores of the entities that the model is worst for, on the reference set."""
    loss = METRICS.get(metric).loss
    scores = sorted(report.entities["reference"].items(), key=lambda item: -loss(item[1][metric]))
    return [{"entity": entity, **values} for entity, values in scores[:ENTITIES_SHOWN]]


def _metadata(candidate: Candidate, plots: dict[str, bytes], journal: Path, settings: Settings) -> dict[str, Any]:
    report, metric = candidate.report, candidate.config.metric
    models = {candidate.config.model.family: report.candidate, **report.baselines}
    rows = []
    for name, model in models.items():
        scores = model.metrics()
        rows.append({"model": name, **{key: scores[key] for key in scores if key.endswith((metric, f"{metric}_mean"))}})
    return {
        "scores": table(rows),
        "beside_baselines": "; ".join(report.beside_baselines(metric)) or "there are no baselines",
        **({"entities": table(_worst_entities(report.candidate, metric))} if report.candidate.entities else {}),
        "params": MetadataValue.json(report.params),
        "iterations": ", ".join(map(str, report.iterations)) or "none",
        "trials": table(list(report.trials)),
        "study": MetadataValue.path(journal),
        "fit_seconds": report.fit_seconds,
        "mlflow_run": run_link(settings, candidate.config.name, candidate.run_id),
        **candidate.config.versions,
        **{f"{name}_plot": picture(png, name) for name, png in plots.items()},
    }
