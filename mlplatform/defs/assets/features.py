"""The feature table (Feast offline store) and the online features of a dataset."""

from collections.abc import Sequence
from typing import Literal

from dagster import AssetExecutionContext, AssetsDefinition, Config, MaterializeResult, MetadataValue
from pydantic import Field

from mlplatform.config import DatasetConfig, ExperimentConfig
from mlplatform.defs.assets.owned import freshness_of, owned_asset
from mlplatform.defs.keys import FEATURE_TABLE, ONLINE_FEATURES, RAW, asset_key
from mlplatform.defs.metadata import column_schema, table
from mlplatform.defs.passing import asked_again
from mlplatform.defs.resources import PlatformResource
from mlplatform.defs.versions import data_version, table_part


class MaterializeConfig(Config):
    """How the online store is brought up to date."""

    mode: Literal["incremental", "full"] = Field(
        default="incremental",
        description="Write the entities whose newest rows changed since the last time, however late, or all of them.",
    )


def feature_table_asset(dataset: DatasetConfig) -> AssetsDefinition:
    """Return the feature-table asset of a dataset."""

    @owned_asset(
        dataset,
        FEATURE_TABLE,
        after=[asset_key(dataset.name, RAW)],
        kinds={"table", "duckdb", "parquet"},
        description=f"{dataset.name} on its regular time grid, gaps visible; applied to the Feast repository.",
        decided_by=table_part(dataset),
        metadata=column_schema(dataset, has_gaps=dataset.kind == "timeseries"),
    )
    def feature_table(platform: PlatformResource) -> MaterializeResult[None]:
        from mlplatform.features.feast import apply_dataset
        from mlplatform.features.tables import update_feature_table

        settings = platform.settings
        report = update_feature_table(dataset, settings)
        views = apply_dataset(dataset, settings)
        return MaterializeResult(
            data_version=data_version(report.table_id, report.revision),
            metadata={
                **column_schema(dataset, report.schema, has_gaps=dataset.kind == "timeseries"),
                "dagster/row_count": report.rows,
                "entities": report.entities,
                "gap_rows": report.gap_rows,
                "revision": report.revision,
                "periods_written": ", ".join(report.periods_written) or "none",
                "windows_changed": report.windows_changed,
                "start": report.start.isoformat(),
                "end": report.end.isoformat(),
                "path": MetadataValue.path(report.path),
                "schema": table([{"column": name, "type": kind} for name, kind in report.schema.items()]),
                "applied": ", ".join(views),
            },
        )

    return feature_table


def online_features_asset(dataset: DatasetConfig, experiments: Sequence[ExperimentConfig]) -> AssetsDefinition:
    """Return the online-features asset of a dataset.

    Parameters:
        experiments: those on the dataset; the one that puts up with the least age says when the asset is overdue.
    """

    @owned_asset(
        dataset,
        ONLINE_FEATURES,
        after=[asset_key(dataset.name, FEATURE_TABLE)],
        kinds={"table"},
        description=f"Latest values and windows of {dataset.name} in Feast's online store.",
        decided_by=table_part(dataset),
        freshness=freshness_of(experiments),
    )
    def online_features(
        context: AssetExecutionContext, config: MaterializeConfig, platform: PlatformResource
    ) -> MaterializeResult[None]:
        from mlplatform.features.online import materialize_online

        with asked_again(context):
            report = materialize_online(dataset, platform.settings, mode=config.mode)
        return MaterializeResult(
            metadata={
                "entities": report.entities,
                "mode": report.mode,
                "written": report.written,
                "removed": report.removed,
                "views": ", ".join(report.views),
                "window_steps": report.window_steps,
                "start": report.start.isoformat(),
                "end": report.end.isoformat(),
                "seconds": report.seconds,
            }
        )

    return online_features
