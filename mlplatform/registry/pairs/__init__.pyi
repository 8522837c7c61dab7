from .aliases import AliasChange
from .artifacts import state_digests, write_folders
from .card import git_commit
from .evidence import PAIR_INTEGRITY, PROMOTION_GATE, SERVING_PARITY, Evidence, tag_name
from .example import confirm_inference, example_rows, read_example
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
    "PAIR_INTEGRITY",
    "PREVIOUS",
    "PRODUCTION",
    "PROMOTION_GATE",
    "ROLES",
    "SERVING_PARITY",
    "STAGING",
    "AliasChange",
    "Evidence",
    "PairConflictError",
    "PairInfo",
    "PairIntegrityError",
    "PairNotFoundError",
    "PairStore",
    "RepairReport",
    "confirm_inference",
    "example_rows",
    "git_commit",
    "read_example",
    "state_digests",
    "tag_name",
    "write_folders",
]
