"""The feature table (Feast offline store) and the online features of a dataset."""

from dagster import AssetsDefinition, MaterializeResult, MetadataValue, asset

from mlplatform.config import DatasetConfig
from mlplatform.defs.keys import FEATURE_TABLE, ONLINE_FEATURES, RAW, asset_key
from mlplatform.defs.metadata import table
from mlplatform.defs.resources import PlatformResource


def feature_table_asset(dataset: DatasetConfig) -> AssetsDefinition:
    """Return the feature-table asset of a dataset."""

    @asset(
        key=asset_key(dataset.name, FEATURE_TABLE),
        deps=[asset_key(dataset.name, RAW)],
        group_name=dataset.name,
        kinds={"feast", "parquet"},
        description=f"{dataset.name} on its regular time grid, gaps visible; applied to the Feast repository.",
    )
    def feature_table(platform: PlatformResource) -> MaterializeResult[None]:
        from mlplatform.data.raw import read_raw
        from mlplatform.features.store import apply_dataset
        from mlplatform.features.table import write_feature_table, write_window_table

        settings = platform.settings
        report = write_feature_table(read_raw(dataset, settings), dataset, settings)
        if dataset.kind == "timeseries":
            write_window_table(dataset, settings)
        views = apply_dataset(dataset, settings)
        return MaterializeResult(
            metadata={
                "dagster/row_count": report.rows,
                "entities": report.entities,
                "gap_rows": report.gap_rows,
                "start": report.start.isoformat(),
                "end": report.end.isoformat(),
                "path": MetadataValue.path(report.path),
                "schema": table([{"column": name, "type": kind} for name, kind in report.schema.items()]),
                "applied": ", ".join(views),
            }
        )

    return feature_table


def online_features_asset(dataset: DatasetConfig) -> AssetsDefinition:
    """Return the online-features asset of a dataset."""

    @asset(
        key=asset_key(dataset.name, ONLINE_FEATURES),
        deps=[asset_key(dataset.name, FEATURE_TABLE)],
        group_name=dataset.name,
        kinds={"feast"},
        description=f"Latest values and windows of {dataset.name} in the online store.",
    )
    def online_features(platform: PlatformResource) -> MaterializeResult[None]:
        from mlplatform.features.online import materialize_online

        report = materialize_online(dataset, platform.settings)
        return MaterializeResult(
            metadata={
                "entities": report.entities,
                "views": ", ".join(report.views),
                "window_steps": report.window_steps,
                "start": report.start.isoformat(),
                "end": report.end.isoformat(),
                "seconds": report.seconds,
            }
        )

    return online_features
