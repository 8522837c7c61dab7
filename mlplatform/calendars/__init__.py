"""Steps of time: what a frequency such as `15min`, `B` or `MS` means, in UTC or on the wall clock of a zone.

Here: which moments are steps, how many lie between two moments, which moment is so many steps later, and what a local
time means where clocks change. Everything that counts steps asks here; nothing else multiplies seconds.
Not here: the rows that lie on the steps, and how long the history of a dataset is cut.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
