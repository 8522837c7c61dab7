"""Features on Feast: tables, online windows, the as-of store, and what training and serving ask of them.

Here: the rooms `tables`, `feast`, `online`, `asof` and `retrieval`, each above the ones before it, and what they share.
Not here: raw data (`data`) and samples for models (`datamodule`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
