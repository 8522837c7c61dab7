"""Nested cross-validation of an experiment: one partition per outer fold."""

from typing import Any

from dagster import AssetExecutionContext, AssetsDefinition, MetadataValue, Output

from mlplatform.candidates import OuterResult
from mlplatform.config import ConfigError, ExperimentConfig
from mlplatform.defs.assets.inputs import load_part, log_versions
from mlplatform.defs.assets.owned import owned_asset
from mlplatform.defs.keys import NESTED_CV, SPLITS, asset_key
from mlplatform.defs.metadata import run_link, table
from mlplatform.defs.resources import MlflowResource, PlatformResource, TrainingResource
from mlplatform.defs.versions import training_part


def nested_cv_asset(experiment: ExperimentConfig) -> AssetsDefinition:
    """Return the nested cross-validation asset of an experiment whose `nested.outer_folds` is not 0."""

    @owned_asset(
        experiment,
        NESTED_CV,
        after=[asset_key(experiment.dataset.name, SPLITS)],
        folds=experiment.nested.fold_names,
        kinds={"optuna", "mlflow"},
        decided_by=[training_part(experiment), experiment.nested.model_dump(mode="json")],
        description="The training procedure, tuning included, scored on outer folds that its search never sees.",
    )
    def nested_cv(
        context: AssetExecutionContext,
        platform: PlatformResource,
        training: TrainingResource,
        mlflow: MlflowResource,
    ) -> Output[dict[str, OuterResult]]:
        from mlplatform.candidates import check_outer_folds, outer_folds, score_outer_fold
        from mlplatform.datamodule import TRAIN, read_manifest
        from mlplatform.registry.runs import nested_cv_experiment, record_nested_cv
        from mlplatform.training import RunCheckpoints

        settings = platform.settings
        config = log_versions(context, experiment.name, training, settings)
        if config.nested.outer_folds != experiment.nested.outer_folds:
            raise ConfigError(
                f"experiment {config.name!r}: this run asks for {config.nested.outer_folds} outer folds, but the asset "
                f"has {experiment.nested.outer_folds} partitions; change nested.outer_folds in the experiment's YAML"
            )
        module = load_part(config, settings, TRAIN)
        rows = read_manifest(settings, config.dataset.name, config.split.version_id).parts[TRAIN].sha256
        folds = dict(zip(config.nested.fold_names, outer_folds(module), strict=True))
        check_outer_folds(module, {name: folds[name] for name in context.partition_keys})
        results, journals = {}, []
        checkpoints = {name: RunCheckpoints.of(settings, config, rows, name) for name in context.partition_keys}
        with mlflow.run(context, settings, nested_cv_experiment(config.name)) as run:
            for name in context.partition_keys:
                journal = settings.studies_dir / config.name / f"{context.run.run_id}_{name}.journal"
                results[name] = score_outer_fold(name, module, folds[name], journal, context.log, checkpoints[name])
                journals.append(journal)
                score = results[name].outer[config.metric]
                context.log.info(f"{name}: {config.metric} {score:.5g} on the outer test rows")
            record_nested_cv(config, results, rows, journals)
            run.set_tags(config.versions)
            sources = training.sources(config.name, settings)
            run.set_tags({f"{key}.source": source for key, source in sources.items()})
        for each in checkpoints.values():
            each.clear()
        link = run_link(settings, nested_cv_experiment(config.name), run.mlflow_run_id)
        return Output(results, metadata={**_metadata(config, results), "mlflow_run": link})

    return nested_cv


def _metadata(config: ExperimentConfig, results: dict[str, OuterResult]) -> dict[str, Any]:
    from mlplatform.candidates import summary

    metric, family = config.metric, config.model.family
    scores = [
        {
            "fold": name,
            "train samples": result.train_samples,
            "test samples": result.test_samples,
            f"inner {metric}": result.inner[metric],
            f"{family} {metric}": result.outer[metric],
            **{f"{baseline} {metric}": values[metric] for baseline, values in result.baselines.items()},
        }
        for name, result in results.items()
    ]
    params = [{"fold": name, **result.params, "iterations": result.iterations} for name, result in results.items()]
    return {
        "scores": table(scores),
        "summary": table(summary(list(results.values()), family, metric)),
        "params": table(params),
        "details": MetadataValue.json({name: result.outer for name, result in results.items()}),
        **config.versions,
    }
