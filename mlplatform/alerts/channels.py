"""The channels: what Apprise can reach by an address, within a time."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from dataclasses import dataclass

from mlplatform.alerts.alert import Alert
from mlplatform.config import AlertsConfig
from mlplatform.settings import secret_from_env

logger = logging.getLogger(__name__)

_URGENT = frozenset({"quality_break", "coverage_lost", "retraining_failed", "run_failed", "server_not_loaded"})


@dataclass(frozen=True)
class Channel:
    """One address of a channel that is on.

    Attributes:
        name: of the channel, and a mark that tells its addresses apart.
        url: Apprise's address; a secret.
    """

    name: str
    url: str
    events: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Channel({self.name!r})"

    def send(self, alert: Alert, timeout_s: float) -> bool:
        """Send an alert and return whether it was taken in time. Raises nothing."""
        outcome: list[bool] = []
        # A thread of its own, because not every library that a channel is made with keeps to a time.
        sending = threading.Thread(
            target=lambda: outcome.append(self._notify(alert, timeout_s)), name=f"alert-{self.name}", daemon=True
        )
        sending.start()
        sending.join(timeout_s)
        return outcome == [True]

    def _notify(self, alert: Alert, timeout_s: float) -> bool:
        try:
            import apprise
        except ImportError:
            logger.warning(
                "channel %s: alerts need Apprise; install mlplatform with the extra 'alerts', or unset its address",
                self.name,
            )
            return False
        # Apprise's log repeats addresses and answers.
        apprise.logger.setLevel(logging.CRITICAL)
        target = apprise.Apprise()
        if not target.add(self.url):
            logger.warning("channel %s: Apprise does not know its address; see its list of services", self.name)
            return False
        kind = apprise.NotifyType.WARNING if alert.event in _URGENT else apprise.NotifyType.INFO
        try:
            return bool(target.notify(alert.body, title=alert.title, notify_type=kind, timeout=timeout_s))
        except Exception as error:
            # What the error says may repeat the address.
            logger.warning("channel %s: %s", self.name, type(error).__name__)
            return False


def open_channels(config: AlertsConfig) -> list[Channel]:
    """Return every address that is set, as a channel of its own: what one has taken is not sent again for another."""
    channels = []
    for name, channel in config.channels.items():
        # A comma may also stand inside an address.
        urls = re.split(r"[\s,]+(?=[a-zA-Z0-9]+://)", (secret_from_env(channel.url_env) or "").strip(" ,\n"))
        for url in filter(None, urls):
            mark = hashlib.sha256(url.encode()).hexdigest()[:6]
            channels.append(Channel(f"{name}-{mark}", url, channel.events))
    return channels
