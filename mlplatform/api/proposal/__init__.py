"""From a table in files to the YAML of an experiment on it.

Here: looking at the files (`looking`, `times`, `zones`, `working_days`, `ahead`, `names`), which column is what
(`roles`), and what follows: YAML (`writing`), what a person is told (`notes`), and the proposal (`proposal`).
Not here: reading the files for good (`data.sources`), and what a configuration may say (`config`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
