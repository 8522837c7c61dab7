"""Registries of the platform's plug-ins: how a name in YAML becomes a class.

A plug-in is one class (or function) in one module of its kind's package, decorated with `@<KIND>.register("name")`.
A registry imports the modules of its package on first use, so adding a file adds the plug-in and there is no list to
extend. Plug-in modules must be cheap to import: heavy libraries are imported inside the functions that use them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class UnknownPluginError(ValueError):
    """A name that no plug-in of the kind has."""


class Registry(Generic[T]):
    """Plug-ins of one kind by name.

    Parameters:
        kind: what a plug-in is called in messages, for example "model".
        package: dotted name of the package (or single module) that holds the plug-ins.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._plugins: dict[str, T] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers its argument under `name`.

        Raises:
            ValueError: if another plug-in of this kind already has the name.
        """

        def add(plugin: T) -> T:
            known = self._plugins.get(name)
            if known is not None and known is not plugin:
                raise ValueError(f"{self.kind} {name!r} is registered twice: {known!r} and {plugin!r}")
            self._plugins[name] = plugin
            return plugin

        return add

    def get(self, name: str) -> T:
        """Return the plug-in called `name`.

        Raises:
            UnknownPluginError: if there is none; the message lists the known names.
        """
        self._discover()
        if name not in self._plugins:
            raise UnknownPluginError(f"unknown {self.kind} {name!r}; known: {', '.join(self.names())}")
        return self._plugins[name]

    def names(self) -> tuple[str, ...]:
        """Return the names of all plug-ins, sorted."""
        self._discover()
        return tuple(sorted(self._plugins))

    def __iter__(self) -> Iterator[tuple[str, T]]:
        return iter([(name, self.get(name)) for name in self.names()])

    def _discover(self) -> None:
        if self._discovered:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
            importlib.import_module(f"{self.package}.{module.name}")
        self._discovered = True


# `Any`, because the plug-in protocols live in the packages above this module, which must not be imported here.
SOURCES: Registry[Any] = Registry("data source", "mlplatform.data.sources")
SPLITTERS: Registry[Any] = Registry("splitter", "mlplatform.datamodule.splitters")
TRANSFORMS: Registry[Any] = Registry("transform", "mlplatform.preprocessing.transforms")
MODELS: Registry[Any] = Registry("model family", "mlplatform.models.families")
METRICS: Registry[Any] = Registry("metric", "mlplatform.training.metrics")
RETRIEVALS: Registry[Any] = Registry("retrieval mode", "mlplatform.features.retrieval.strategies")
DRIFT_TESTS: Registry[Any] = Registry("drift test", "mlplatform.monitoring.drift_tests")
EXECUTORS: Registry[Any] = Registry("tuning executor", "mlplatform.tuning.executors")
