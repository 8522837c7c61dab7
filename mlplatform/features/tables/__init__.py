"""The Parquet tables behind the feature store: raw rows on a regular grid, and the windows cut from it.

Here: how a table is written, grows and is described, and the arithmetic of windows.
Not here: Feast, which reads these files.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
