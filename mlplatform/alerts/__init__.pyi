from .alert import Alert
from .delivery import deliver_alerts, has_channels, post_alert, send_alert
from .messages import (
    broken_data,
    coverage_lost,
    drifted,
    gave_up,
    promoted,
    refused,
    requested,
    rolled_back,
    run_failed,
    server_not_loaded,
)

__all__ = [
    "Alert",
    "broken_data",
    "coverage_lost",
    "deliver_alerts",
    "drifted",
    "gave_up",
    "has_channels",
    "post_alert",
    "promoted",
    "refused",
    "requested",
    "rolled_back",
    "run_failed",
    "send_alert",
    "server_not_loaded",
]
