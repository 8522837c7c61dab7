"""What training runs leave in MLflow, and how it is read back.

Here: parameters, scores, hashes, plots and configuration of a run.
Not here: models (`registry.pairs`) and decisions about them (`promotion`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
