"""Retrieval: what training, batch scoring and serving ask of the feature store.

Here: `FeatureStoreFacade`, which finds a strategy by name and returns panels that say how old they are, and the bulk
reads of training and of the parity check. Not here: how rows are stored.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
