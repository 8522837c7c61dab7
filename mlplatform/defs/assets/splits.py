"""The split versions of a dataset: train, reference and test rows under DVC."""

from collections.abc import Sequence
from typing import Any

from dagster import AssetExecutionContext, AssetsDefinition, MaterializeResult, MetadataValue

from mlplatform.config import DatasetConfig, ExperimentConfig, SplitConfig
from mlplatform.defs.assets.inputs import check_run_config
from mlplatform.defs.assets.owned import owned_asset
from mlplatform.defs.keys import FEATURE_TABLE, SPLITS, asset_key
from mlplatform.defs.metadata import table
from mlplatform.defs.resources import PlatformResource, TrainingResource
from mlplatform.settings import Settings


def splits_asset(dataset: DatasetConfig, experiments: Sequence[ExperimentConfig]) -> AssetsDefinition:
    """Return the asset that writes every split version the dataset's experiments use."""

    @owned_asset(
        dataset,
        SPLITS,
        after=[asset_key(dataset.name, FEATURE_TABLE)],
        kinds={"parquet", "dvc"},
        description=f"Train, reference and test rows of {dataset.name}; reference and test rows never change.",
    )
    def splits(
        context: AssetExecutionContext, platform: PlatformResource, training: TrainingResource
    ) -> MaterializeResult[None]:
        from mlplatform.datamodule import push, split_dir, track, write_split
        from mlplatform.features.retrieval import load_history

        settings = platform.settings
        check_run_config(context, experiments, training, settings)
        targets = list(dict.fromkeys(target for experiment in experiments for target in experiment.targets))
        history = load_history(dataset, tuple(dataset.columns), settings)
        rows: list[dict[str, Any]] = []
        hashes: dict[str, dict[str, str]] = {}
        for split in _versions(experiments, training, settings):
            manifest = write_split(dataset, split, history, settings)
            folder = split_dir(settings, dataset.name, manifest.version_id)
            dvc = track(settings, [folder / f"{part}.parquet" for part in manifest.parts])
            hashes[manifest.version_id] = dvc
            for name, part in manifest.parts.items():
                rows.append({"version": manifest.version_id, "part": name, **part.statistics(targets)})
            context.log.info(f"split version {manifest.version_id}: {', '.join(manifest.parts)}")
        pushed = push(settings, [digest for files in hashes.values() for digest in files.values()])
        return MaterializeResult(
            metadata={
                "parts": table(rows),
                "dvc": MetadataValue.json(hashes),
                "pushed": "no remote is configured" if pushed is None else f"{pushed} files the remote did not have",
                "path": MetadataValue.path(settings.splits_dir / dataset.name),
            }
        )

    return splits


def _versions(
    experiments: Sequence[ExperimentConfig], training: TrainingResource, settings: Settings
) -> list[SplitConfig]:
    """Return the distinct split versions that the experiments would train on now.

    A requested version is meant for one experiment; those that do not allow it keep their own.
    """
    from mlplatform.config import ConfigError

    versions: dict[str, SplitConfig] = {}
    errors = []
    for experiment in experiments:
        try:
            split = training.resolve(experiment.name, settings).split
        except ConfigError as error:
            errors.append(error)
            split = TrainingResource().resolve(experiment.name, settings).split
        versions.setdefault(split.version_id, split)
    if errors and len(errors) == len(experiments):
        raise errors[0]
    return list(versions.values())
