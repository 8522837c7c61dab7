"""What tree families share, by library (`xgboost`, `catboost`, `random_forest`) and by task (`forecast`, `tabular`).

Here: fitting, storage and answers of trees.
Not here: the features they read in a forecast (`models.forecasting`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
