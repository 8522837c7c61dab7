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


# Tags of a Dagster run that the drift sensor asked for: what had drifted, of which pair, in the data up to when (of
# tables, in how many rows), and which request and try of it the run is. The causes stand there for people, and as a
# list of JSON.
DRIFT_CAUSE_TAG = "drift/cause"
DRIFT_PAIR_TAG = "drift/pair_version"
DRIFT_DATA_TAG = "drift/data_until"
DRIFT_ROWS_TAG = "drift/rows"
REQUEST_TAG, ATTEMPT_TAG, CAUSES_TAG = "retrain/request", "retrain/attempt", "retrain/causes"
# Tag of a run that the sensor for new data asked for: what is new.
NEW_DATA_TAG, NEW_DATA_ID_TAG = "new_data", "new_data/id"
# Tag of a run of one experiment; `dagster.yaml` lets one such run at a time leave the queue.
EXPERIMENT_TAG = "experiment"
