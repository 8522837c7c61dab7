from .calendar_effects import effects_ahead, fit_effects, past_effects
from .calendar_inputs import DAY_SECONDS, WEEK_SECONDS
from .lag_features import last_observed
from .on_linear import OnLinear
from .rule import RuleModel
from .smoothing import smoothed
from .strategies import (
    StrategyForecast,
    StrategyParams,
    Table,
    forecast,
    forecast_start,
    learning_table,
    strategy_features,
    strategy_rows,
)
from .with_smoothing import WithSmoothing

__all__ = [
    "DAY_SECONDS",
    "WEEK_SECONDS",
    "OnLinear",
    "RuleModel",
    "StrategyForecast",
    "StrategyParams",
    "Table",
    "WithSmoothing",
    "effects_ahead",
    "fit_effects",
    "forecast",
    "forecast_start",
    "last_observed",
    "learning_table",
    "past_effects",
    "smoothed",
    "strategy_features",
    "strategy_rows",
]
