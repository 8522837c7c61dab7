"""Models: the contract of a family, prediction intervals, and storage without pickle.

Here: the room `families` with the plug-ins, and what they share in `trees`, `forecasting` and `networks`.
Not here: the loop that trains networks, and scores (`training`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
