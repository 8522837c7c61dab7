"""Pairs in the MLflow registry: registered under one version number, switched by one alias, verified when read.

A pair is `<name>_preprocessor`, `<name>_model` and `<name>_forecaster` (both in one pyfunc) under the same version
number. Every change has one commit point, a single write to the registry:

- a registration: the tag `pair_id` on the version of `<name>_model`, written last. Without it the three versions are
  leftovers of a run that was cut off; the next registration, or a repair, marks and steps over them;
- an alias: the alias on `<name>_model`. The aliases of the other two models, and the alias `previous`, are mirrors for
  people and for plain MLflow, brought in line by the next write;
- an entry of an alias's history: written before the alias moves, and void unless the alias did move.

Here: everything that writes or reads the registry; `PairStore.resolve` is the one way from a name to a pair.
Not here: whether a pair deserves an alias (`promotion`), and what its training run recorded (`registry.runs`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
