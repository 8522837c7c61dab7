from .features import feature_table_asset, online_features_asset
from .folds import cv_folds_asset, fold_preprocessor_asset
from .forecasts import forecasts_asset
from .inputs import load_part, too_good_evidence
from .monitoring import drift_report_asset, forecast_errors_asset, prediction_log_asset
from .nested_cv import nested_cv_asset
from .promotion import (
    gate_metadata,
    production_alias_asset,
    production_version,
    promotion_metadata,
    serving_reload_asset,
    tell_promotion,
)
from .raw import raw_asset
from .registration import registered_pair_asset
from .splits import splits_asset
from .training import tuned_model_asset

__all__ = [
    "cv_folds_asset",
    "drift_report_asset",
    "feature_table_asset",
    "fold_preprocessor_asset",
    "forecast_errors_asset",
    "forecasts_asset",
    "gate_metadata",
    "load_part",
    "nested_cv_asset",
    "online_features_asset",
    "prediction_log_asset",
    "production_alias_asset",
    "production_version",
    "promotion_metadata",
    "raw_asset",
    "registered_pair_asset",
    "serving_reload_asset",
    "splits_asset",
    "tell_promotion",
    "too_good_evidence",
    "tuned_model_asset",
]
