"""From windows to rows and back: lag features, strategies of many-step forecasts, and rules.

Here: what forecasting families of any kind share.
Not here: what a library's trees or a network make of it (`models.trees`, `models.networks`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
