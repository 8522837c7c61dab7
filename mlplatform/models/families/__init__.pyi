from .tft import TFT, Interpretation
from .xgboost import XGBoostForecastParams

__all__ = ["TFT", "Interpretation", "XGBoostForecastParams"]
