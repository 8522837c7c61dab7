"""The prediction log: what was served, kept for drift reports and error tracking.

Here: the buffer that servers append to, the rows that predictions make, and the files or the database that keep them.
Not here: what is made of the log (`monitoring.drift`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
