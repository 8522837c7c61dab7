"""The Feast repository of one installation: its configuration, opening it, and applying datasets to it.

The same configuration stands in `feature_repo/feature_store.yaml` for the `feast` command line. Feast's registry is one
file that every change reads, modifies and writes back, so changes are made under a lock between processes.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mlplatform.config import DatasetConfig
from mlplatform.features.definitions import build_definitions
from mlplatform.features.errors import FeatureStoreError
from mlplatform.features.feast_import import import_feast
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from feast import FeatureStore

PROJECT = "mlplatform"


class _Stores(threading.local):
    """The stores of one thread, by process and settings."""

    def __init__(self) -> None:
        self.opened: dict[tuple[int, Settings], FeatureStore] = {}


_STORES = _Stores()


def open_store(settings: Settings) -> FeatureStore:
    """Return the Feast store of an installation; the same one for the same thread and settings.

    Feast keeps one SQLite connection per store. Threads that shared it would see each other's half-written windows,
    and a connection does not survive a fork, so every thread and every child process has a store of its own.
    """
    import_feast()
    from feast import FeatureStore, RepoConfig

    key = (os.getpid(), settings)
    store = _STORES.opened.get(key)
    if store is None:
        settings.feast_dir.mkdir(parents=True, exist_ok=True)
        store = _STORES.opened[key] = FeatureStore(config=RepoConfig(**repo_config(settings)))
    return store


def apply_dataset(dataset: DatasetConfig, settings: Settings) -> tuple[str, ...]:
    """Register the dataset's entity and feature views, and prepare the online store for them.

    Applying again updates what changed and keeps other datasets.

    Returns:
        Names of the applied objects.

    Raises:
        FeatureStoreError: if the dataset's feature table does not exist.
    """
    objects = list(build_definitions(dataset, settings))
    store = open_store(settings)
    with registry_lock(settings):
        store.registry.refresh(store.project)
        store.apply(objects)
    return tuple(item.name for item in objects)


@contextmanager
def registry_lock(settings: Settings) -> Iterator[None]:
    """Hold the right to change the registry file, against other threads and processes."""
    settings.feast_dir.mkdir(parents=True, exist_ok=True)
    with (settings.feast_dir / "registry.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def repo_config(settings: Settings) -> dict[str, Any]:
    """Return what `feature_store.yaml` says for these settings.

    The result holds the Redis password when one is set; it must not be logged.
    """
    return {
        "project": PROJECT,
        "provider": "local",
        "registry": {
            "path": str(settings.feast_dir / "registry.db"),
            "registry_store_type": "mlplatform.features.registry_store.AtomicFileRegistryStore",
        },
        "offline_store": {"type": "mlplatform.features.asof_store.AsOfOfflineStore"},
        "online_store": _online_store(settings),
        # Otherwise Feast reads every row of the history to keep the last one, and writes all entities at once.
        "materialization": {"pull_latest_features": True, "online_write_batch_size": 1000},
        # The as-of store does this itself; Feast's way scans every time stamp.
        "coerce_tz_aware": False,
        "entity_key_serialization_version": 3,
    }


def _online_store(settings: Settings) -> dict[str, Any]:
    if settings.redis_url is None:
        return {"type": "sqlite", "path": str(settings.feast_dir / "online.db")}
    # Without `skip_dedup`, Feast drops a row whose event time is already stored, and with it a corrected window.
    return {"type": "redis", "connection_string": redis_connection(settings.redis_url), "skip_dedup": True}


def redis_connection(url: str) -> str:
    """Translate `redis[s]://[user[:password]@]host[:port][/db]` to Feast's comma-separated form.

    Raises:
        FeatureStoreError: if the address cannot be written in that form. The message does not repeat it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError as error:
        raise FeatureStoreError("MLPLATFORM_REDIS_URL has no valid port") from error.__cause__
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise FeatureStoreError("MLPLATFORM_REDIS_URL must look like redis://user:password@host:6379/0")
    values: dict[str, Any] = {"db": int(parts.path.strip("/") or 0)} if parts.path.strip("/").isdecimal() else {"db": 0}
    if parts.scheme == "rediss":
        values["ssl"] = True
    for name, value in (("username", parts.username), ("password", parts.password)):
        if value:
            values[name] = unquote(value)
    pairs = [f"{name}={json.dumps(value)}" for name, value in values.items()]
    if any("," in pair for pair in pairs):
        raise FeatureStoreError("MLPLATFORM_REDIS_URL: Feast cannot take a user or password with a comma")
    return ",".join([f"{parts.hostname}:{port}", *pairs])
