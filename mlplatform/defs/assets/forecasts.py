"""The forecasts of every entity, in batch."""

from typing import Any

from dagster import AssetExecutionContext, AssetsDefinition, Config, MaterializeResult, MetadataValue
from pydantic import Field

from mlplatform.config import ExperimentConfig
from mlplatform.defs.assets.owned import owned_asset
from mlplatform.defs.keys import FORECASTS, ONLINE_FEATURES, PRODUCTION_ALIAS, asset_key
from mlplatform.defs.metadata import picture, table
from mlplatform.defs.resources import PlatformResource


class ForecastConfig(Config):
    """The moment whose knowledge is read."""

    time_point: str = Field(
        default="now",
        description="now, or an ISO 8601 time: later rows, and corrections that came later, are not looked at.",
    )


def forecasts_asset(experiment: ExperimentConfig) -> AssetsDefinition:
    """Return the asset that forecasts every entity from the production pair."""

    @owned_asset(
        experiment,
        FORECASTS,
        after=[
            asset_key(experiment.name, PRODUCTION_ALIAS),
            asset_key(experiment.dataset.name, ONLINE_FEATURES),
        ],
        kinds={"table", "parquet"},
        decided_by=[
            experiment.model_dump(mode="json", include={"staleness", "observation", "forecasts"}),
            experiment.serving.fallback,
        ],
        description="Every entity's forecast from the production pair: points, intervals, ages, and who was left out.",
    )
    def forecasts(
        context: AssetExecutionContext, config: ForecastConfig, platform: PlatformResource
    ) -> MaterializeResult[None]:
        from mlplatform.forecasts import make_forecasts, plot_sample

        report = make_forecasts(experiment, platform.settings, config.time_point)
        left_out = [{"reason": reason, "entities": count} for reason, count in report.left_out.items()]
        for each in left_out:
            context.log.warning(f"{each['entities']} entities without a forecast: {each['reason']}")
        metadata: dict[str, Any] = {
            "dagster/row_count": report.rows,
            "entities": report.entities,
            "fallbacks": report.fallbacks,
            "left_out": table(left_out),
            "origin": report.origin.isoformat(),
            "time_point": report.time_point,
            "version": report.pair.version,
            "pair_id": report.pair.pair_id,
            "path": MetadataValue.path(report.path),
            "seconds": report.seconds,
        }
        if report.copied_to is not None:
            metadata["copied_to"] = MetadataValue.path(report.copied_to)
        if report.database_rows is not None:
            metadata["database_rows"] = report.database_rows
        if report.sample is not None:
            metadata["forecast"] = picture(plot_sample(report.sample), f"the forecast of {report.sample.entity}")
        return MaterializeResult(metadata=metadata)

    return forecasts
