"""What is in the online store and how it gets there: materialised, pushed, and read back.

Here: windows and latest rows of entities, as training's tables say they should be.
Not here: how old an answer may be and who asks for it (`features.retrieval`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
