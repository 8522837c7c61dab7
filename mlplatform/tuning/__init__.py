"""Hyperparameter search with Optuna over the cross-validation folds.

Here: which parameters are tried, where trials run (`tuning.executors`), when a search ends and what it chooses.
Not here: a study's file and its recovery (`tuning.study`), and one fit (`training`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
