"""The split versions of a dataset: train, reference and test rows under DVC."""

from collections.abc import Sequence
from typing import Any

from dagster import AssetExecutionContext, AssetsDefinition, MaterializeResult, MetadataValue

from mlplatform.config import DatasetConfig, ExperimentConfig, SplitConfig
from mlplatform.defs.assets.inputs import check_run_config
from mlplatform.defs.assets.owned import owned_asset
from mlplatform.defs.keys import FEATURE_TABLE, SPLITS, asset_key
from mlplatform.defs.metadata import column_schema, table
from mlplatform.defs.resources import PlatformResource, TrainingResource
from mlplatform.defs.versions import data_version, split_part, table_part
from mlplatform.settings import Settings

CONTEXT_MARK = {"is_context": "Whether the row only stands before the part, so that its first window is complete."}


def splits_asset(dataset: DatasetConfig, experiments: Sequence[ExperimentConfig]) -> AssetsDefinition:
    """Return the asset that writes every split version the dataset's experiments use."""
    is_series = dataset.kind == "timeseries"

    @owned_asset(
        dataset,
        SPLITS,
        after=[asset_key(dataset.name, FEATURE_TABLE)],
        kinds={"dataset", "parquet"},
        decided_by=[table_part(dataset), [split_part(experiment) for experiment in experiments]],
        metadata=column_schema(dataset, has_gaps=is_series, marks=CONTEXT_MARK if is_series else {}),
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
        contents: dict[str, dict[str, str]] = {}
        for split in _versions(experiments, training, settings):
            manifest = write_split(dataset, split, history, settings, targets)
            folder = split_dir(settings, dataset.name, manifest.version_id)
            dvc = track(settings, [folder / f"{part}.parquet" for part in manifest.parts])
            hashes[manifest.version_id] = dvc
            contents[manifest.version_id] = {name: part.sha256 for name, part in manifest.parts.items()}
            for name, part in manifest.parts.items():
                rows.append({"version": manifest.version_id, "part": name, **part.statistics(targets)})
            context.log.info(f"split version {manifest.version_id}: {', '.join(manifest.parts)}")
        pushed = push(settings, [digest for files in hashes.values() for digest in files.values()])
        return MaterializeResult(
            data_version=data_version(contents),
            metadata={
                "parts": table(rows),
                "dvc": MetadataValue.json(hashes),
                "pushed": "no remote is configured" if pushed is None else f"{pushed} files the remote did not have",
                "path": MetadataValue.path(settings.splits_dir / dataset.name),
            },
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
