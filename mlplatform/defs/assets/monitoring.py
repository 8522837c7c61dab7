"""Served predictions and the drift report."""

from dagster import AssetExecutionContext, AssetsDefinition, MaterializeResult, MetadataValue

from mlplatform.config import ExperimentConfig
from mlplatform.defs.assets.owned import owned_asset
from mlplatform.defs.keys import DRIFT_REPORT, FEATURE_TABLE, PREDICTION_LOG, PRODUCTION_ALIAS, asset_key
from mlplatform.defs.metadata import table
from mlplatform.defs.resources import PlatformResource, TrainingResource
from mlplatform.defs.versions import data_version


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


def drift_report_asset(experiment: ExperimentConfig) -> AssetsDefinition:
    """Return the asset that compares recent rows and served errors with what training saw."""

    @owned_asset(
        experiment,
        DRIFT_REPORT,
        after=[asset_key(experiment.name, PREDICTION_LOG), asset_key(experiment.dataset.name, FEATURE_TABLE)],
        kinds={"report", "json"},
        decided_by=experiment.drift.model_dump(mode="json", exclude={"retrain", "cooldown_hours"}),
        description="Recent features and served errors against the training rows of the production pair, and what is "
        "broken in them.",
    )
    def drift_report(
        context: AssetExecutionContext, platform: PlatformResource, training: TrainingResource
    ) -> MaterializeResult[None]:
        import datetime as dt

        from mlplatform.datamodule import TRAIN, read_part
        from mlplatform.features.retrieval import load_history
        from mlplatform.monitoring import (
            build_report,
            read_error_test,
            read_report,
            recent_predictions,
            update_error_test,
            write_error_test,
            write_report,
        )
        from mlplatform.registry.pairs import PRODUCTION, PairStore

        settings = platform.settings
        config = training.resolve(experiment.name, settings)
        store = PairStore(settings)
        pair = store.resolve(config.registered_name, PRODUCTION)
        history = load_history(config.dataset, tuple(config.dataset.columns), settings)
        # A day more than the pair is old, for clocks that differ.
        since = pair.created_at - dt.timedelta(days=1)
        predictions = recent_predictions(settings, config, pair.version, history, since)
        reference_error = store.client.get_run(pair.run_id).data.metrics.get("reference_mae")
        error_test = update_error_test(
            config, pair.version, history, predictions, reference_error, read_error_test(settings, config.name)
        )
        report = build_report(
            config,
            pair.version,
            train=read_part(settings, config.dataset.name, pair.tags["split_version"], TRAIN),
            history=history,
            predictions=predictions,
            reference_error=reference_error,
            previous=read_report(settings, config.name),
            error_test=error_test,
        )
        path = write_report(report, settings)
        if error_test is not None:
            write_error_test(error_test, settings, config.name)
        context.log.info(f"drift: {', '.join(report.causes) or 'none'}")
        if report.quality:
            context.log.warning(f"broken: {', '.join(each.name for each in report.quality)}")
        features = [{**vars(drift), "kinds": ", ".join(drift.kinds)} for drift in report.features]
        return MaterializeResult(
            metadata={
                "drifted": report.is_drifted,
                "causes": ", ".join(report.causes) or "none",
                "suspected": ", ".join(report.suspects) or "none",
                "quality": table([vars(each) for each in report.quality]),
                "production": report.pair_version,
                "data_until": report.data_until,
                "features": table(features),
                "errors": table([vars(report.errors)]),
                "path": MetadataValue.path(path),
            }
        )

    return drift_report
