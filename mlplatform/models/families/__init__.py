"""The model families: one module each, named as in YAML, found by name through `plugins.MODELS`.

Here: parameters, search space and arithmetic of a family.
Not here: what several families share (`models.trees`, `models.forecasting`, `models.networks`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
