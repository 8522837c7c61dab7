"""Alerts on their way: posted into an outbox, delivered once per channel, and kept while a channel is away.

Whoever has something to tell posts it, which writes one file, and may deliver at once. What is left (quiet hours, a
channel that is away, a process that was killed) is delivered by the next one, which may be the sensor `alerts`.
Nothing here raises: a training or a server must not fail because a message did not get through.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlplatform.alerts.alert import Alert
from mlplatform.alerts.channels import Channel, open_channels
from mlplatform.config import AlertsConfig, load_alerts
from mlplatform.locks import FileLock
from mlplatform.settings import Settings
from mlplatform.state_files import is_ahead, moment, parsed, read_state
from mlplatform.storage import atomic_file

logger = logging.getLogger(__name__)

# When which channel took an alert, by the alert's digest.
Told = dict[str, dict[str, dt.datetime]]
# Alerts that wait, and that are remembered as told; beyond this the oldest go.
MOST_WAITING, MOST_REMEMBERED = 500, 2_000
# Seconds that one delivery goes on for, however many alerts wait and channels are away.
DELIVERY_S = 20.0


@dataclass(frozen=True)
class _Waiting:
    """An alert in the outbox, and when it was posted, ISO 8601."""

    posted_at: str
    alert: Alert


def has_channels(settings: Settings) -> bool:
    """Return whether anyone would be told."""
    try:
        return bool(open_channels(load_alerts(settings.alerts_config, settings)))
    except Exception as error:
        logger.warning("alerts: %s", error)
        return False


def send_alert(settings: Settings, alert: Alert) -> None:
    """Post an alert and deliver what waits."""
    if post_alert(settings, alert):
        deliver_alerts(settings)


def post_alert(settings: Settings, alert: Alert) -> bool:
    """Put an alert into the outbox and return whether it waits there now.

    It does not if nobody is to be told of such events, or all have been told within the configuration's `repeat_hours`.
    """
    try:
        config = load_alerts(settings.alerts_config, settings)
        channels = [channel for channel in open_channels(config) if alert.event in channel.events]
        if not channels:
            return False
        now = dt.datetime.now(dt.UTC)
        if not _untold(_read_told(settings), alert, channels, config, now):
            return False
        clean = alert.without(_secrets(settings, channels))
        path = _outbox(settings) / f"{alert.digest}.json"
        if not path.exists():
            with atomic_file(path) as temporary:
                temporary.write_text(json.dumps({"posted_at": now.isoformat(), "alert": clean.to_json()}))
            _drop_oldest(settings)
        return True
    except Exception as error:
        logger.warning("alert %r could not be posted: %s", alert.title, error)
        return False


def deliver_alerts(settings: Settings, now: dt.datetime | None = None) -> int:
    """Deliver what waits in the outbox, for a bounded time, and return how many messages got through.

    Parameters:
        now: the present, which quiet hours are about; by default, the clock's.
    """
    try:
        config = load_alerts(settings.alerts_config, settings)
        lock = FileLock(settings.home / "alerts" / "delivery.lock", wait_s=0)
        # Whoever holds it delivers what was posted before, and the next one what was posted since.
        if not any(_outbox(settings).glob("*.json")) or not lock.acquire():
            return 0
        try:
            return _Delivery(settings, config, now or dt.datetime.now(dt.UTC)).run()
        finally:
            lock.release()
    except Exception as error:
        logger.warning("alerts could not be delivered: %s", error)
        return 0


class _Delivery:
    """One round over the outbox. Its caller holds the lock."""

    def __init__(self, settings: Settings, config: AlertsConfig, now: dt.datetime) -> None:
        self._settings, self._config, self._now = settings, config, now
        self._channels = open_channels(config)
        self._told = _read_told(settings)
        self._away: set[str] = set()
        self._until = time.monotonic() + DELIVERY_S
        self._sent = 0

    def run(self) -> int:
        for path in sorted(_outbox(self._settings).glob("*.json"), key=_age):
            if time.monotonic() > self._until:
                break
            try:
                self._deliver(path)
            except Exception as error:
                # Of one alert; it stays, and the others are delivered all the same.
                logger.warning("the alert %s could not be delivered: %s", path, error)
        return self._sent

    def _deliver(self, path: Path) -> None:
        waiting = _read_waiting(path)
        if waiting is None:
            path.unlink(missing_ok=True)
            return
        posted_at, alert = moment(waiting.posted_at), waiting.alert
        if self._config.quiet_hours is not None and self._config.quiet_hours.hold(alert.event, self._now):
            return
        wanted = [channel for channel in self._channels if alert.event in channel.events]
        left = _untold(self._told, alert, wanted, self._config, self._now)
        for channel in left:
            if channel.name in self._away or time.monotonic() > self._until:
                continue
            if channel.send(alert, self._config.timeout_s):
                self._sent += 1
                self._remember(alert, channel)
            else:
                # Others that wait would only wait for the same channel.
                self._away.add(channel.name)
                logger.warning("channel %s did not take the alert %r; it is tried again", channel.name, alert.title)
        is_over = self._now - posted_at > dt.timedelta(hours=self._config.keep_hours)
        if is_over or not _untold(self._told, alert, wanted, self._config, self._now):
            path.unlink(missing_ok=True)

    def _remember(self, alert: Alert, channel: Channel) -> None:
        self._told[alert.digest] = self._told.pop(alert.digest, {}) | {channel.name: self._now}
        for digest in list(self._told)[:-MOST_REMEMBERED]:
            del self._told[digest]
        # Written after every message: a process that is killed repeats one at most.
        with atomic_file(_told_path(self._settings)) as temporary:
            temporary.write_text(json.dumps(self._told, default=dt.datetime.isoformat))


def _untold(
    told: Told, alert: Alert, channels: Iterable[Channel], config: AlertsConfig, now: dt.datetime
) -> list[Channel]:
    """Return the channels that have not heard of an alert for `repeat_hours`.

    What was told in the future, by a clock that was wrong, is told again now.
    """
    heard = told.get(alert.digest, {})
    repeat = dt.timedelta(hours=config.repeat_hours)
    return [
        channel
        for channel in channels
        if (at := heard.get(channel.name)) is None or now - at >= repeat or is_ahead(at, now)
    ]


def _secrets(settings: Settings, channels: Iterable[Channel]) -> list[str]:
    """Return what must not appear in any message."""
    addresses = [
        settings.mlflow_tracking_uri,
        settings.redis_url,
        settings.feast_registry,
        settings.prediction_log_url,
        *(channel.url for channel in channels),
    ]
    passwords = [urlsplit(address).password for address in addresses if address and "://" in address]
    given = [settings.admin_token, *settings.api_tokens, settings.signing_key_password, *passwords]
    given += [channel.url for channel in channels]
    return [form for secret in given if secret for form in {secret, unquote(secret)}]


def _outbox(settings: Settings) -> Path:
    return settings.home / "alerts" / "outbox"


def _told_path(settings: Settings) -> Path:
    return settings.home / "alerts" / "told.json"


def _read_told(settings: Settings) -> Told:
    """Return when which channel took an alert, in UTC, by the alert's digest; nothing of a damaged file."""
    otherwise = "alerts that were told may be told once more; nothing needs to be done"
    return read_state(_told_path(settings), _parsed_told, otherwise) or {}


def _parsed_told(text: str) -> Told:
    """Return what the file of told alerts says.

    Raises:
        ValueError, OverflowError: if it is none.
    """
    told = parsed(text, dict[str, dict[str, str]])
    return {digest: {name: moment(at) for name, at in heard.items()} for digest, heard in told.items()}


def _read_waiting(path: Path) -> _Waiting | None:
    """Return an alert that waits; `None` for a file that holds none, of which a warning tells."""
    return read_state(path, _parsed_waiting, "the alert in it is lost; what is still so is told by the next one")


def _parsed_waiting(text: str) -> _Waiting:
    """Return what a file of the outbox says; what a later version added is left out.

    Raises:
        ValueError, OverflowError: if it is none.
    """
    waiting = parsed(text, _Waiting)
    moment(waiting.posted_at)
    return waiting


def _drop_oldest(settings: Settings) -> None:
    waiting = sorted(_outbox(settings).glob("*.json"), key=_age)
    for path in waiting[:-MOST_WAITING]:
        path.unlink(missing_ok=True)


def _age(path: Path) -> float:
    """Return when a file was written; one that someone else has just delivered counts as new."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
