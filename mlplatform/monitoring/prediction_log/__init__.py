"""The prediction log: what was served, kept as Parquet for drift reports and error tracking.

Here: the buffer that servers append to, the rows that predictions make, and the part files that hold them.
Not here: what is made of the log (`monitoring.drift`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
