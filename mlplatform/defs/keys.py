"""Asset keys: `[<dataset>, <asset>]` and `[<experiment>, <asset>]`."""

from __future__ import annotations

from dagster import AssetKey

RAW, FEATURE_TABLE, ONLINE_FEATURES, SPLITS = "raw", "feature_table", "online_features", "splits"
CV_FOLDS, FOLD_PREPROCESSOR, TUNED_MODEL = "cv_folds", "fold_preprocessor", "tuned_model"
REGISTERED_PAIR, PRODUCTION_ALIAS, SERVING_RELOAD = "registered_pair", "production_alias", "serving_reload"
PREDICTION_LOG, FORECAST_ERRORS, DRIFT_REPORT = "prediction_log", "forecast_errors", "drift_report"
FORECASTS = "forecasts"
NESTED_CV = "nested_cv"
CONFIGURATION = "configuration"

DATASET_ASSETS = (RAW, FEATURE_TABLE, ONLINE_FEATURES, SPLITS)
TRAINING_ASSETS = (CV_FOLDS, FOLD_PREPROCESSOR, TUNED_MODEL, REGISTERED_PAIR, PRODUCTION_ALIAS, SERVING_RELOAD)
MONITORING_ASSETS = (PREDICTION_LOG, FORECAST_ERRORS, DRIFT_REPORT)


def asset_key(owner: str, asset: str) -> AssetKey:
    """Return the key of an asset of a dataset or experiment."""
    return AssetKey([owner, asset])


# Tag of a Dagster run that the drift sensor asked for: what had drifted.
DRIFT_CAUSE_TAG = "drift/cause"
