"""Forecasts in batch: every entity's forecast from the production pair, as a table, without a server.

Here: a run over all entities, the table it leaves, and what else gets its rows (an SQL table, a copy elsewhere).
Not here: how a pair answers and what it refuses (`registry`), and how features are read (`features.retrieval`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
