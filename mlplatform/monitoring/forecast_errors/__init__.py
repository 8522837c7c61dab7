"""The table of forecast errors: every prediction, served or in batch, beside what happened and a naive forecast.

Here: the pieces of the table, how they follow what was predicted and what is known of it, and what is read from them.
Not here: the logs that predictions and labels arrive in, and what is made of the errors (`drift`, `adaptation`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
