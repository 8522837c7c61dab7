"""The raw table of a dataset: read from its source and validated."""

from collections.abc import Sequence

from dagster import AssetExecutionContext, AssetsDefinition, Config, MaterializeResult, MetadataValue
from pydantic import Field

from mlplatform.config import DatasetConfig, ExperimentConfig
from mlplatform.defs.assets.inputs import check_run_config
from mlplatform.defs.assets.owned import freshness_of, owned_asset
from mlplatform.defs.keys import RAW
from mlplatform.defs.metadata import column_schema, table
from mlplatform.defs.passing import asked_again
from mlplatform.defs.resources import PlatformResource, TrainingResource
from mlplatform.defs.versions import data_version, raw_part


class IngestConfig(Config):
    """How the raw table is brought up to date."""

    full: bool = Field(
        default=False,
        description="Read an incremental source from its beginning and replace the table; others always are.",
    )


def raw_asset(dataset: DatasetConfig, experiments: Sequence[ExperimentConfig]) -> AssetsDefinition:
    """Return the raw asset of a dataset. It is the first step of its experiments' jobs and checks their run config."""

    @owned_asset(
        dataset,
        RAW,
        kinds={"table", "parquet"},
        description=dataset.description or f"Validated rows of {dataset.name}, read from {dataset.source.uri}.",
        decided_by=raw_part(dataset),
        metadata=column_schema(dataset),
        freshness=freshness_of(experiments),
    )
    def raw(
        context: AssetExecutionContext, config: IngestConfig, platform: PlatformResource, training: TrainingResource
    ) -> MaterializeResult[None]:
        from mlplatform.data import ingest

        check_run_config(context, experiments, training, platform.settings)
        with asked_again(context):
            report = ingest(dataset, platform.settings, full=config.full)
        if report.quarantined:
            context.log.warning(f"{report.quarantined} rows went to quarantine: {report.reasons}")
        return MaterializeResult(
            data_version=data_version(report.sha256),
            metadata={
                "dagster/row_count": report.rows,
                "entities": report.entities,
                "start": report.start.isoformat() if report.start else "none",
                "end": report.end.isoformat() if report.end else "none",
                "rows_read": report.rows_read,
                "periods_written": ", ".join(report.periods_written) or "none",
                "quarantined": report.quarantined,
                "reasons": MetadataValue.json(report.reasons),
                "frequency": report.frequency,
                "missing_steps": report.gaps,
                "out_of_order_rows": report.out_of_order_rows,
                "removed_entities": report.removed,
                "sha256": report.sha256,
                "path": MetadataValue.path(report.path),
                "quarantine": MetadataValue.path(report.quarantine_path) if report.quarantine_path else "none",
                "ranges": table([{"column": name, **values} for name, values in report.ranges.items()]),
            },
        )

    return raw
