"""One study: opened, kept in its journal, gone on with after a kill.

Here: the journal and its locks, sampler and pruner, and how outcomes are stored.
Not here: questions about its trials (`tuning.trials`), and the loop that runs them (`tuning.search`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
