"""From a registered pair to the alias `production`, and back.

Here: the decision, the gate that feeds it, the checks whose evidence it needs, the promoter, rollback, reproduction.
Not here: how a pair is stored and an alias moved safely (`registry.pairs`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
