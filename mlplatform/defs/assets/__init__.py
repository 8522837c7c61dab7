"""Asset factories: one module per stage, one group of assets per dataset and per experiment.

Here: what an asset depends on, what it calls, and the metadata people see.
Not here: assembly (`definitions`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
