"""The class path of the SQLite online store in `feature_store.yaml` files of earlier versions; it stays."""

from mlplatform.features.online.sqlite_store import WindowSqliteOnlineStore, WindowSqliteOnlineStoreConfig

__all__ = ["WindowSqliteOnlineStore", "WindowSqliteOnlineStoreConfig"]
