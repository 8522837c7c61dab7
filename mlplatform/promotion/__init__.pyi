from .active_config import (
    active_config_path,
    read_active_pair,
    read_active_versions,
    remembered_versions,
    version_overrides,
)
from .by_hand import promote_version
from .checks import check_pair_integrity, check_promotion_gate, check_serving_parity, compare_with_baselines
from .evidence import LEAKAGE, TOO_GOOD, find_finding, keep_finding
from .gate import GateReport
from .gate_plot import plot_gate
from .integrity import prepare_clean_process
from .notify import notify_servers
from .page import gate_rows
from .promoter import Promotion, PromotionRefusedError, promote_pair, promotion_lock
from .recording import RUN_PAGE, record_decision, record_page
from .reproduce import reproduce_pair
from .retraining import DRIFT_CAUSE
from .rollback import repair, roll_back

__all__ = [
    "DRIFT_CAUSE",
    "LEAKAGE",
    "RUN_PAGE",
    "TOO_GOOD",
    "GateReport",
    "Promotion",
    "PromotionRefusedError",
    "active_config_path",
    "check_pair_integrity",
    "check_promotion_gate",
    "check_serving_parity",
    "compare_with_baselines",
    "find_finding",
    "gate_rows",
    "keep_finding",
    "notify_servers",
    "plot_gate",
    "prepare_clean_process",
    "promote_pair",
    "promote_version",
    "promotion_lock",
    "read_active_pair",
    "read_active_versions",
    "record_decision",
    "record_page",
    "remembered_versions",
    "repair",
    "reproduce_pair",
    "roll_back",
    "version_overrides",
]
