"""The model registry: pairs at work, their stored files, and the connection to MLflow.

Here: the rooms `pairs` (registered, resolved, verified) and `runs` (what runs leave in MLflow), and what both need.
Not here: whether a pair deserves an alias (`promotion`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
