"""Fitted preprocessing: the TransformManager and the contract of a transform.

Here: what is learnt from training rows and then applied alike everywhere, and undone for answers.
Not here: which rows those are (`datamodule`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
