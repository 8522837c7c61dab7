"""Cross-validation folds and the preprocessor fitted on each: one partition per fold."""

from dagster import AssetExecutionContext, AssetsDefinition, Output

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule import StoredFold
from mlplatform.defs.assets.inputs import check_folds, folds_version, load_held_out, load_part, refuse_broken_data
from mlplatform.defs.assets.owned import owned_asset
from mlplatform.defs.keys import CV_FOLDS, FOLD_PREPROCESSOR, SPLITS, asset_key
from mlplatform.defs.metadata import table
from mlplatform.defs.resources import PlatformResource, TrainingResource
from mlplatform.preprocessing import TransformManager


def cv_folds_asset(experiment: ExperimentConfig) -> AssetsDefinition:
    """Return the folds asset of an experiment."""

    @owned_asset(
        experiment,
        CV_FOLDS,
        after=[asset_key(experiment.dataset.name, SPLITS)],
        folds=experiment.split.fold_names,
        kinds={"parquet"},
        decided_by=experiment.fold_digest(),
        description="Row numbers of each fold: what preprocessing may see, training samples, validation samples.",
    )
    def cv_folds(
        context: AssetExecutionContext, platform: PlatformResource, training: TrainingResource
    ) -> Output[dict[str, StoredFold]]:
        from mlplatform.training import check_demands

        config = training.resolve(experiment.name, platform.settings)
        refuse_broken_data(context, config, training, platform.settings)
        module = load_part(config, platform.settings, "train")
        folds = dict(zip(config.split.fold_names, module.folds(), strict=True))
        chosen = {key: StoredFold(folds[key], config.fold_digest()) for key in context.partition_keys}
        held_out = load_held_out(config, platform.settings)
        check_demands(module, {key: stored.fold for key, stored in chosen.items()}, held_out)
        times = module.panel.timestamps
        rows = [
            {
                "fold": key,
                "train samples": len(stored.fold.train),
                "validation samples": len(stored.fold.validation),
                "fitted up to": str(times[stored.fold.fit_rows].max())[:19],
                "validated up to": str(times[stored.fold.validation + config.horizon].max())[:19],
            }
            for key, stored in chosen.items()
        ]
        return Output(
            chosen,
            metadata={"folds": table(rows), "split_version": config.split.version_id},
            data_version=folds_version(config, platform.settings),
        )

    return cv_folds


def fold_preprocessor_asset(experiment: ExperimentConfig) -> AssetsDefinition:
    """Return the fold-preprocessor asset of an experiment."""

    @owned_asset(
        experiment,
        FOLD_PREPROCESSOR,
        reads=(CV_FOLDS,),
        folds=experiment.split.fold_names,
        kinds={"json"},
        decided_by=experiment.fold_digest(),
        description="The TransformManager fitted on each fold's own training rows.",
    )
    def fold_preprocessor(
        platform: PlatformResource, training: TrainingResource, cv_folds: dict[str, StoredFold]
    ) -> Output[dict[str, TransformManager]]:
        from mlplatform.training import fit_preprocessor

        config = training.resolve(experiment.name, platform.settings)
        check_folds(config, cv_folds)
        module = load_part(config, platform.settings, "train")
        fitted = {key: fit_preprocessor(module, stored.fold.fit_rows) for key, stored in cv_folds.items()}
        rows = [
            {"fold": key, "column": column, "transform": kind, **transform.state()}
            for key, manager in fitted.items()
            for column, kind, transform in manager.fitted_
        ]
        version = folds_version(config, platform.settings)
        return Output(fitted, metadata={"fitted": table(rows)}, data_version=version)

    return fold_preprocessor
