"""Standard protocols, each a thin form around `serving.service`: read its request, ask, write its answer.

Here: one module per protocol with its router, and what several of them share.
Not here: what computes, admits, counts and logs a prediction (`serving.service` and below).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
