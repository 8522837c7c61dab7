"""What people do with experiments, from Python: look, train, forecast, promote, go back, delete, look after.

Here: one module per act, over the rooms below. Results are data frames and small frozen objects that a notebook shows
well. The command line (`mlplatform.cli`) calls these and nothing else.
Not here: the acts themselves, which other rooms own; how anything looks on a terminal; HTTP (`serving`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
