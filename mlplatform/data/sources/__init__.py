"""Data sources: one plug-in per module, chosen by the scheme or file suffix of `source.uri`.

Here: the contract of a source, the plug-ins, and what several of them share (files, servers, messages, watermarks).
Not here: what becomes of the rows; a source delivers cells as they are, and `data.validation` judges them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
