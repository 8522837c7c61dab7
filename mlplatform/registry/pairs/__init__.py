"""Pairs in the MLflow registry: registered under one version number, switched by one alias, verified when read.

A pair is `<name>_preprocessor`, `<name>_model` and `<name>_forecaster` (both in one pyfunc) under the same version
number. Every change has one commit point, a single write to the registry:

- a registration: the tag `pair_id` on the version of `<name>_model`, written last. Without it the three versions are
  leftovers of a run that was cut off; the next registration, or a repair, marks and steps over them;
- an alias: the alias on `<name>_model`. The aliases of the other two models, and the alias `previous`, are mirrors for
  people and for plain MLflow, brought in line by the next write;
- an entry of an alias's history: written before the alias moves, and void unless the alias did move.

Nothing else in the platform reads aliases: `PairStore.resolve` is the one way from a name to a pair.
"""

from __future__ import annotations

from mlplatform.registry.pairs.aliases import AliasChange
from mlplatform.registry.pairs.info import (
    LATEST,
    PREVIOUS,
    PRODUCTION,
    ROLES,
    STAGING,
    PairConflictError,
    PairInfo,
    PairIntegrityError,
    PairNotFoundError,
)
from mlplatform.registry.pairs.repair import RepairReport
from mlplatform.registry.pairs.store import PairStore

__all__ = [
    "LATEST",
    "PREVIOUS",
    "PRODUCTION",
    "ROLES",
    "STAGING",
    "AliasChange",
    "PairConflictError",
    "PairInfo",
    "PairIntegrityError",
    "PairNotFoundError",
    "PairStore",
    "RepairReport",
]
