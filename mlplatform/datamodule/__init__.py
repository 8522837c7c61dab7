"""From rows to model samples: panels, windows, feature matrices, splits and folds.

Here: which rows belong together and what a model sees of them, before anything is fitted.
Not here: preprocessing, whose fitted state a data module is handed, and models.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
