"""Networks and their parts as torch modules.

Here: tensors in, tensors out. Importing it imports torch, so import it inside functions.
Not here: samples, parameters of a family, storage.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
