"""From a CSV file to the YAML of an experiment on it.

Here: looking at the file (`looking`, `times`), and the proposal that follows (`proposal`).
Not here: reading the file for good (`data.sources`), and what a configuration may say (`config`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
