"""Fitting and scoring: trainers, prepared folds, metrics, the leakage check, and unfinished fits on disk.

Here: one fit, and what it is judged by.
Not here: many fits (`tuning`), and whole training runs (`candidates`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
