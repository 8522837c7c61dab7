"""Served predictions, what came true of them, and the drift report."""

from typing import TYPE_CHECKING, Any

from dagster import AssetExecutionContext, AssetMaterialization, AssetsDefinition, MaterializeResult, MetadataValue

from mlplatform.config import ExperimentConfig
from mlplatform.defs.assets.owned import owned_asset
from mlplatform.defs.keys import (
    DRIFT_REPORT,
    FEATURE_TABLE,
    FORECAST_ERRORS,
    FORECASTS,
    PREDICTION_LOG,
    PRODUCTION_ALIAS,
    asset_key,
)
from mlplatform.defs.metadata import frame_table, table
from mlplatform.defs.resources import PlatformResource, TrainingResource
from mlplatform.defs.versions import data_version

if TYPE_CHECKING:
    from mlplatform.monitoring import DriftReport, KeptReport


def prediction_log_asset(experiment: ExperimentConfig) -> AssetsDefinition:
    """Return the asset that keeps the log's files few and sums up what the servers logged."""

    @owned_asset(
        experiment,
        PREDICTION_LOG,
        after=[asset_key(experiment.name, PRODUCTION_ALIAS)],
        kinds={"table", "parquet"},
        description="Predictions as they were served, in long form. Joins the files of past days.",
    )
    def prediction_log(platform: PlatformResource) -> MaterializeResult[None]:
        import datetime as dt

        from mlplatform.monitoring import maintain_predictions, summarise_predictions

        settings = platform.settings
        done = maintain_predictions(settings, experiment.name, dt.datetime.now(dt.UTC))
        log = summarise_predictions(settings, experiment.name)
        last_served = str(log.last_served or "never")
        versions = [
            {"version": version, "requests": log.requests[version], "values": values}
            for version, values in sorted(log.values.items())
        ]
        return MaterializeResult(
            # Rows are only ever added, or deleted a day at a time.
            data_version=data_version(log.rows, last_served),
            metadata={
                "dagster/row_count": log.rows,
                "last_served": last_served,
                "by_version": table(versions),
                "compacted_files": done.replaced_files,
                "deleted_days": done.deleted_days,
                "deleted_rows": done.deleted_rows,
                "place": log.place,
            },
        )

    return prediction_log


def forecast_errors_asset(experiment: ExperimentConfig) -> AssetsDefinition:
    """Return the asset that joins predictions with what happened, as it becomes known and is corrected."""

    @owned_asset(
        experiment,
        FORECAST_ERRORS,
        after=[
            asset_key(experiment.name, PREDICTION_LOG),
            asset_key(experiment.name, FORECASTS),
            asset_key(experiment.dataset.name, FEATURE_TABLE),
        ],
        kinds={"table", "parquet"},
        decided_by=experiment.model_dump(mode="json", include={"truth", "adaptation"}),
        description="Every prediction, served or in batch, beside what happened and the naive forecast of its moment.",
    )
    def forecast_errors(platform: PlatformResource) -> MaterializeResult[None]:
        import datetime as dt

        from mlplatform.monitoring import (
            adapt_intervals,
            errors_folder,
            maintain_feedback,
            summarise_errors,
            update_errors,
        )

        settings = platform.settings
        maintain_feedback(settings, experiment.name, dt.datetime.now(dt.UTC))
        done = update_errors(experiment, settings)
        scale = adapt_intervals(experiment, settings)
        by_version = summarise_errors(experiment, settings, ("version", "arm", "source"))
        by_step = summarise_errors(experiment, settings, ("version", "step"))
        return MaterializeResult(
            metadata={
                "dagster/row_count": done.rows,
                "waiting_for_truth": done.waiting,
                "pieces": done.pieces,
                "pieces_written": done.written,
                "by_version": frame_table(by_version),
                "by_step": frame_table(by_step),
                "interval_scales": "as calibrated" if scale is None else ", ".join(f"{s:.3g}" for s in scale.scales),
                "path": MetadataValue.path(errors_folder(settings, experiment.name)),
            },
        )

    return forecast_errors


def drift_report_asset(experiment: ExperimentConfig) -> AssetsDefinition:
    """Return the asset that compares recent rows and served errors with what training saw, a report per day."""

    @owned_asset(
        experiment,
        DRIFT_REPORT,
        after=[asset_key(experiment.name, FORECAST_ERRORS), asset_key(experiment.dataset.name, FEATURE_TABLE)],
        kinds={"report", "json"},
        decided_by=experiment.drift.model_dump(mode="json", exclude={"retrain", "cooldown_hours"}),
        days_from=experiment.automation.first_report_day,
        description="Recent features and served errors against the training rows of the production pair, and what is "
        "broken in them, by the knowledge of each day. A run without a day is about the present one.",
    )
    def drift_report(
        context: AssetExecutionContext, platform: PlatformResource, training: TrainingResource
    ) -> MaterializeResult[None]:
        import datetime as dt

        from mlplatform.monitoring import report_on

        settings, clock = platform.settings, dt.datetime.now(dt.UTC)
        config = training.resolve(experiment.name, settings)
        days = sorted(context.partition_keys) if context.has_partition_key_range else []
        metadata: dict[str, Any] = {}
        for day in days or [clock.date().isoformat()]:
            kept = report_on(config, settings, dt.date.fromisoformat(day), clock)
            _log(context, kept.report)
            metadata = report_metadata(kept)
            if days:
                context.add_asset_metadata(metadata, partition_key=day)
            else:
                # Without a partition in the run, Dagster does not know which one this is.
                context.log_event(AssetMaterialization(context.asset_key, partition=day, metadata=metadata))
        return MaterializeResult(metadata=None if days else metadata)

    return drift_report


def report_metadata(kept: "KeptReport") -> dict[str, Any]:
    """Return what the page of a report shows."""
    report = kept.report
    features, groups = (
        [{**vars(each), "kinds": ", ".join(each.kinds)} for each in part] for part in (report.features, report.groups)
    )
    return {
        "day": report.about,
        "drifted": report.is_drifted,
        "causes": ", ".join(report.causes) or "none",
        "suspected": ", ".join(report.suspects) or "none",
        "quality": table([vars(each) for each in report.quality]),
        "production": report.pair_version,
        "data_until": report.data_until,
        "features": table(features),
        **({"groups": table(groups)} if groups else {}),
        **({"notes": "; ".join(report.notes)} if report.notes else {}),
        "errors": table([vars(report.errors)]),
        "path": MetadataValue.path(kept.path),
        "page": MetadataValue.path(kept.page),
    }


def _log(context: AssetExecutionContext, report: "DriftReport") -> None:
    context.log.info(f"drift by the end of {report.about}: {', '.join(report.causes) or 'none'}")
    if report.quality:
        context.log.warning(f"broken: {', '.join(each.name for each in report.quality)}")
