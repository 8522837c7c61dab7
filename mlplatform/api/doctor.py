"""A look at the installation: versions, stores, ports, disk, permissions, clock; each with what would mend it."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import importlib.util
import os
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlplatform.settings import Settings, without_credentials

Level = Literal["ok", "note", "bad"]
GIB = 1024**3
LITTLE_DISK = 2 * GIB
PORTS = {3000: "make ui", 5000: "make mlflow"}
# What each extra brings that can be told by its absence.
EXTRAS = {
    "training": "dagster",
    "sources": "confluent_kafka",
    "redis": "redis",
    "ray": "ray",
    "signing": "model_signing",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: `ok`, `note` for what may be meant so, `bad` for what keeps something from working.
        remedy: what to do; empty if nothing is.
    """

    level: Level
    what: str
    found: str
    remedy: str = ""


def diagnose(settings: Settings | None = None) -> tuple[Finding, ...]:
    """Look after the installation; what cannot even be looked at is a finding, not an error."""
    settings = settings or Settings.from_env()
    looks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _home,
        _disk,
        _clock,
        _dagster,
        _secrets,
        _ports,
        _configuration,
        _registry,
        _online_store,
    )
    return tuple(finding for look in looks for finding in _guarded(look, settings))


def _guarded(look: Callable[[Settings], Iterator[Finding]], settings: Settings) -> Iterator[Finding]:
    try:
        yield from look(settings)
    except Exception as error:  # whatever one look meets, the others are taken
        what = look.__name__.strip("_").replace("_", " ")
        reason = without_credentials(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        yield Finding("bad", what, reason, "see the reason; it is of the part itself")


def _python(_settings: Settings) -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info < (3, 14):
        yield Finding("ok", "python", f"{found} on {sys.platform}")
    else:
        yield Finding("bad", "python", found, "use Python 3.11, 3.12 or 3.13")


def _packages(_settings: Settings) -> Iterator[Finding]:
    present = {extra for extra, module in EXTRAS.items() if importlib.util.find_spec(module)}
    versions = [
        f"{name} {importlib.metadata.version(name)}"
        for name in ("dagster", "mlflow", "feast", "ray", "torch", "xgboost")
        if importlib.util.find_spec(name)
    ]
    yield Finding("ok", "packages", ", ".join(versions))
    absent = sorted(set(EXTRAS) - present)
    if absent:
        yield Finding("note", "extras", f"not installed: {', '.join(absent)}", 'pip install "mlplatform[all]" has all')


def _home(settings: Settings) -> Iterator[Finding]:
    home = settings.home
    if not home.exists():
        yield Finding("note", "state", f"{home} is not there yet", "the first command that writes makes it")
        return
    if not os.access(home, os.W_OK | os.X_OK):
        yield Finding("bad", "state", f"{home} cannot be written", "give its owner the right, or set MLPLATFORM_HOME")
    elif home.stat().st_mode & stat.S_IWOTH:
        yield Finding("bad", "state", f"anyone may write to {home}", f"chmod o-w {home}")
    else:
        yield Finding("ok", "state", str(home))


def _disk(settings: Settings) -> Iterator[Finding]:
    place = settings.home
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < LITTLE_DISK:
        remedy = "make room, or put MLPLATFORM_HOME on another disk; `mlplatform delete` frees what an experiment holds"
        yield Finding("bad", "disk", f"{free / GIB:.1f} GiB free at {place}", remedy)
    else:
        yield Finding("ok", "disk", f"{free / GIB:.0f} GiB free")


def _clock(settings: Settings) -> Iterator[Finding]:
    now = dt.datetime.now(dt.UTC)
    newest = max((path.stat().st_mtime for path in settings.home.glob("*")), default=0.0)
    ahead = newest - now.timestamp()
    if now.year < 2026 or ahead > 60:
        found = f"{now:%Y-%m-%d %H:%M}Z" + (f", but files are {ahead:.0f} s newer than that" if ahead > 60 else "")
        yield Finding("bad", "clock", found, "set the machine's clock; ages of features and cool-downs depend on it")
    else:
        yield Finding("ok", "clock", f"{now:%Y-%m-%d %H:%M}Z")


def _dagster(_settings: Settings) -> Iterator[Finding]:
    from mlplatform.settings import AddressError, check_dagster_home

    home = os.environ.get("DAGSTER_HOME")
    if home is None:
        yield Finding(
            "note", "dagster", "DAGSTER_HOME is not set", "make and mlplatform set it to MLPLATFORM_HOME/dagster"
        )
        return
    try:
        check_dagster_home()
    except AddressError as error:
        yield Finding("bad", "dagster", str(error), "set DAGSTER_HOME to a folder without '?' and '%'")
        return
    if not Path(home, "dagster.yaml").exists():
        yield Finding("note", "dagster", f"{home} has no dagster.yaml", "make setup puts the project's there")
    else:
        yield Finding("ok", "dagster", home)


def _secrets(settings: Settings) -> Iterator[Finding]:
    if settings.admin_token is None:
        found = "MLPLATFORM_ADMIN_TOKEN is not set, so servers cannot be told to reload"
        yield Finding("note", "tokens", found, "they look for a new pair themselves; set it to tell them at once")
    keys = [path for path in (settings.signing_key, settings.tls_key) if path is not None]
    for path in keys:
        if not path.exists():
            yield Finding("bad", "keys", f"{path} is not there", "correct the variable that names it")
        elif path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            yield Finding("bad", "keys", f"others may read {path}", f"chmod 600 {path}")


def _ports(settings: Settings) -> Iterator[Finding]:
    for port, use in {settings.serving_port: "make serve", **PORTS}.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                yield Finding("note", "ports", f"{port} ({use}) is in use", "it may be yours; else use another port")


def _configuration(settings: Settings) -> Iterator[Finding]:
    from mlplatform.config import check_all

    if settings.conf_dir is not None and not settings.conf_dir.exists():
        remedy = "`mlplatform new <file>` makes it; or correct MLPLATFORM_CONF_DIR"
        yield Finding("note", "configuration", f"{settings.conf_dir} is not there yet", remedy)
        return
    listing = check_all(settings)
    if listing.mistakes:
        count = sum(map(len, listing.mistakes.values()))
        yield Finding("bad", "configuration", f"{count} mistakes in {len(listing.mistakes)} files", "mlplatform check")
    else:
        yield Finding("ok", "configuration", listing.to_text())


def _registry(settings: Settings) -> Iterator[Finding]:
    from mlplatform.settings import sqlite_file

    file = sqlite_file(settings.mlflow_tracking_uri)
    if file is not None and not file.exists():
        yield Finding("note", "registry", "nothing was ever trained here", "mlplatform train <experiment>")
        return
    from mlplatform.registry import RegistryAwayError, client_for, require_answer

    try:
        require_answer(settings)
        client = client_for(settings)
    except RegistryAwayError as error:
        found, _, remedy = str(error).partition("; ")
        yield Finding("bad", "registry", found, remedy)
        return
    models = client.search_registered_models(max_results=1)
    yield Finding("ok", "registry", "MLflow answers" + ("" if models else "; nothing is registered yet"))


def _online_store(settings: Settings) -> Iterator[Finding]:
    if settings.redis_url is None:
        return
    import redis

    try:
        redis.Redis.from_url(settings.redis_url, socket_timeout=2, socket_connect_timeout=2).ping()
    except redis.RedisError as error:
        # The address may hold a password, and so may what the client says about it.
        remedy = "start it, or correct MLPLATFORM_REDIS_URL; requests with rows of their own are answered meanwhile"
        yield Finding("bad", "online store", f"Redis does not answer: {type(error).__name__}", remedy)
    else:
        yield Finding("ok", "online store", "Redis answers")
