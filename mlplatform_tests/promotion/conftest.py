"""The registries of the registry tests."""

from mlplatform_tests.registry.conftest import empty, register, settings, stocked, store, tiny

__all__ = ["empty", "register", "settings", "stocked", "store", "tiny"]
