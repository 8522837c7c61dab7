from .aliases import AliasChange
from .artifacts import state_digests, write_folders
from .card import git_commit
from .example import example_rows
from .info import (
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
from .repair import RepairReport
from .store import PairStore

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
    "example_rows",
    "git_commit",
    "state_digests",
    "write_folders",
]
