"""A whole training run: from prepared folds to a fitted, scored candidate beside its baselines.

Here: the run, its plots and nested cross-validation around it.
Not here: what becomes of a candidate (`registry`, `promotion`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
