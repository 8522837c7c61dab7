"""What happens to a model after it is promoted: the prediction log, drift reports and the retrain policy.

Here: what was served, whether the world moved, and whether to train again.
Not here: who starts the training (`defs.sensors`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
