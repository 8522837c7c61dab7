from .catboost import fit_catboost, fit_counts, load_catboost, regression_loss, save_catboost, unchanging
from .contributions import forecast_contributions, shares_of_boosters, shares_of_catboost, table_contributions
from .counts import LossParams
from .fitted import Boosted, CannotMergeError
from .forecast import BoostedForecast, Task
from .merged import MergedBoosters, answers_of, differing_values, merge_boosters
from .oblivious import ObliviousTrees, raw_answers
from .random_forest import FOREST_SEARCH_SPACE, Forest, ForestParams
from .tabular import BoostedTabular
from .xgboost import BOOSTING_SEARCH_SPACE, BoostingParams, fit_booster, load_boosters, quantile_matrix, save_boosters

__all__ = [
    "BOOSTING_SEARCH_SPACE",
    "FOREST_SEARCH_SPACE",
    "Boosted",
    "BoostedForecast",
    "BoostedTabular",
    "BoostingParams",
    "CannotMergeError",
    "Forest",
    "ForestParams",
    "LossParams",
    "MergedBoosters",
    "ObliviousTrees",
    "Task",
    "answers_of",
    "differing_values",
    "fit_booster",
    "fit_catboost",
    "fit_counts",
    "forecast_contributions",
    "load_boosters",
    "load_catboost",
    "merge_boosters",
    "quantile_matrix",
    "raw_answers",
    "regression_loss",
    "save_boosters",
    "save_catboost",
    "shares_of_boosters",
    "shares_of_catboost",
    "table_contributions",
    "unchanging",
]
