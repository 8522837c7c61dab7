"""Retrieval strategies: one module per way of reading features, found by name through `plugins.RETRIEVALS`.

Here: which store a read goes to, and what it makes of a time point.
Not here: the reads themselves (`features.online`, `features.retrieval.offline`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
