from .aliases import AliasChange
from .artifacts import Fetch, load_pair, load_with_example, state_digests, stored_example, write_folders
from .card import git_commit
from .evidence import PAIR_INTEGRITY, PROMOTION_GATE, SERVING_PARITY, Evidence, tag_name, verdict
from .example import confirm_inference, differences, example_rows, read_example
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
    PairUnreadableError,
    registered_model,
)
from .kept import KeptPairs
from .repair import RepairReport
from .resolution import LARGEST_VERSION, outcome
from .signed import describe_signature
from .store import PairStore

__all__ = [
    "LARGEST_VERSION",
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
    "Fetch",
    "KeptPairs",
    "PairConflictError",
    "PairInfo",
    "PairIntegrityError",
    "PairNotFoundError",
    "PairStore",
    "PairUnreadableError",
    "RepairReport",
    "confirm_inference",
    "describe_signature",
    "differences",
    "example_rows",
    "git_commit",
    "load_pair",
    "load_with_example",
    "outcome",
    "read_example",
    "registered_model",
    "state_digests",
    "stored_example",
    "tag_name",
    "verdict",
    "write_folders",
]
