"""The Feast repository of one installation: its configuration, opening it, and applying datasets to it.

The same configuration stands in `feature_repo/feature_store.yaml` for the `feast` command line.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlplatform.config import DatasetConfig
from mlplatform.feast_import import import_feast
from mlplatform.features.errors import FeatureStoreError, StoreUnavailableError
from mlplatform.features.feast.definitions import build_definitions, entity_name, features_view_name, windows_view_name
from mlplatform.features.feast.online_servers import online_server
from mlplatform.features.feast.registry import (
    file_registry,
    registry_config,
    registry_errors,
    registry_lock,
    registry_version,
    require_registry,
)
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

logger = logging.getLogger(__name__)

PROJECT = "mlplatform"


@dataclass(frozen=True)
class Registered:
    """A dataset as Feast's registry knows it.

    Attributes:
        store: the opened repository.
        features: the view of latest rows.
        windows: the view of windows; `None` for tabular data.
        has_text_ids: whether entity ids are text; whole numbers otherwise.
    """

    store: FeatureStore
    features: FeatureView
    windows: FeatureView | None
    has_text_ids: bool


class _Stores(threading.local):
    """The stores of one thread, by process and settings, and what was read from their registries at which version."""

    def __init__(self) -> None:
        self.opened: dict[tuple[int, Settings], FeatureStore] = {}
        self.registered: dict[tuple[int, Settings, str], tuple[tuple[int, ...], Registered]] = {}


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
        with registry_errors(settings), registry_lock(settings):  # a new registry makes its file or its tables
            store = _STORES.opened[key] = FeatureStore(config=RepoConfig(**repo_config(settings)))
    return store


def registered(dataset: DatasetConfig, settings: Settings) -> Registered:
    """Return a dataset's views as they are in the registry now; from a database, as of at most a minute ago.

    Building views from the registry takes longer than reading a window, so they are kept until the registry changes.
    While it is away they are what they were, or what `keep_registry` kept.

    Raises:
        FeatureStoreError: if the dataset has not been applied.
        StoreUnavailableError: if the registry does not answer and nothing is known of it.
    """
    key = (os.getpid(), settings, dataset.name)
    version = registry_version(settings)
    known = _STORES.registered.get(key)
    if known is not None and known[0] == version:
        return known[1]
    try:
        if known is not None or settings.served_feast_registry.exists():
            require_registry(settings)
        store = open_store(settings)
        with registry_errors(settings):
            found = _read_registered(store, dataset)
    except StoreUnavailableError as error:
        if known is None and not settings.served_feast_registry.exists():
            raise
        logger.warning("dataset %r is read as it was registered before: %s", dataset.name, error)
        found = known[1] if known is not None else _read_registered(_kept_store(settings), dataset)
    _STORES.registered[key] = (version, found)
    return found


def keep_registry(settings: Settings) -> None:
    """Keep the registry as it is now, so that this machine can read features while it is away.

    Raises:
        StoreUnavailableError: if the registry does not answer.
    """
    require_registry(settings)
    store, kept = open_store(settings), settings.served_feast_registry
    with registry_errors(settings):
        store.registry.refresh(store.project)
        content: bytes = store.registry.proto().SerializeToString(deterministic=True)
    if kept.exists() and kept.read_bytes() == content:
        return
    with atomic_file(kept) as temporary:
        temporary.write_bytes(content)


def _kept_store(settings: Settings) -> FeatureStore:
    import_feast()
    from feast import FeatureStore, RepoConfig

    registry = {**file_registry(settings.served_feast_registry), "cache_ttl_seconds": 0}
    return FeatureStore(config=RepoConfig(**{**repo_config(settings), "registry": registry}))


def _read_registered(store: FeatureStore, dataset: DatasetConfig) -> Registered:
    from feast import ValueType
    from feast.errors import EntityNotFoundException, FeatureViewNotFoundException

    def view(name: str) -> FeatureView:
        return store.registry.get_feature_view(name, store.project, allow_cache=False)

    try:
        entity = store.registry.get_entity(entity_name(dataset), store.project, allow_cache=False)
        return Registered(
            store=store,
            features=view(features_view_name(dataset)),
            windows=view(windows_view_name(dataset)) if dataset.kind == "timeseries" else None,
            has_text_ids=bool(entity.value_type == ValueType.STRING),
        )
    except (EntityNotFoundException, FeatureViewNotFoundException) as error:
        raise FeatureStoreError(
            f"dataset {dataset.name!r} is not registered: it was never applied, or a `feast teardown` took it out; "
            f"run the job materialize_{dataset.name}, or apply_dataset"
        ) from error


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
    with registry_errors(settings), registry_lock(settings):
        store.registry.refresh(store.project)
        store.apply(objects)
    _STORES.registered.clear()
    return tuple(item.name for item in objects)


def repo_config(settings: Settings) -> dict[str, Any]:
    """Return what `feature_store.yaml` says for these settings.

    Addresses with passwords are in it; their `repr` hides them, their text must not be logged.
    """
    return {
        "project": PROJECT,
        "provider": "local",
        "registry": registry_config(settings),
        "offline_store": {"type": "mlplatform.features.asof.store.AsOfOfflineStore"},
        "online_store": online_server(settings).config(),
        # Otherwise Feast reads every row of the history to keep the last one, and writes all entities at once.
        "materialization": {"pull_latest_features": True, "online_write_batch_size": 1000},
        # The as-of store does this itself; Feast's way scans every time stamp.
        "coerce_tz_aware": False,
        "entity_key_serialization_version": 3,
    }
