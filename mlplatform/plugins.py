"""Registries of the platform's plug-ins: how a name in YAML becomes a class.

A plug-in is one class (or function) in one module of its kind's package, decorated with `@<KIND>.register("name")`.
A registry imports the modules of its package on first use, so adding a file adds the plug-in and there is no list to
extend. Then it imports the plug-in modules from outside: those that `MLPLATFORM_PLUGINS` names and those that installed
packages announce as entry points of the group `mlplatform.plugins`. Plug-in modules must be cheap to import: heavy
libraries are imported inside the functions that use them.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Generic, TypeVar

from mlplatform.plugin_kinds import (
    DataSource,
    DriftTest,
    ExecutorPlugin,
    MetricPlugin,
    ModelFamily,
    RetrievalMode,
    SplitterPlugin,
    TransformPlugin,
)
from mlplatform.settings import PLUGINS_VARIABLE, plugin_modules

T = TypeVar("T")

ENTRY_POINTS = "mlplatform.plugins"
logger = logging.getLogger(__name__)


class PluginError(ValueError):
    """A plug-in that cannot be had."""


class UnknownPluginError(PluginError):
    """A name that no plug-in of the kind has."""


class DisputedPluginError(PluginError):
    """A name that two plug-ins of the kind have."""


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
        self._outside: set[str] = set()
        self._disputes: dict[str, str] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers its argument under `name`.

        A name that a plug-in from outside shares with another one is refused to whoever asks for it, so that neither
        the order of loading decides who is meant nor the other plug-ins of both modules are lost.

        Raises:
            ValueError: if two plug-ins that belong together have the name.
        """

        def add(plugin: T) -> T:
            known = self._plugins.setdefault(name, plugin)
            if known is not plugin:
                text = f"{self.kind} {name!r} is registered twice: {_called(known)} and {_called(plugin)}"
                if self._is_own(known) == self._is_own(plugin) and not _outside.is_loading:
                    raise ValueError(text)
                self._disputes[name] = f"{text}; rename one of them"
                logger.error("%s", self._disputes[name])
            elif not self._is_own(plugin):
                self._outside.add(name)
            return plugin

        return add

    def get(self, name: str) -> T:
        """Return the plug-in called `name`.

        Raises:
            UnknownPluginError: if there is none; the message lists the known names.
            DisputedPluginError: if two have the name, one of them from outside; the message names both.
        """
        self._discover()
        if name in self._disputes:
            raise DisputedPluginError(self._disputes[name])
        if name not in self._plugins:
            known = ", ".join(self.names())
            raise UnknownPluginError(f"unknown {self.kind} {name!r}; known: {known}{failures_note()}")
        return self._plugins[name]

    def names(self) -> tuple[str, ...]:
        """Return the names of all plug-ins, sorted."""
        self._discover()
        return tuple(sorted(self._plugins))

    def outside(self) -> tuple[str, ...]:
        """Return the names of the plug-ins that are not the platform's own, sorted."""
        self._discover()
        return tuple(sorted(self._outside))

    def disputes(self) -> tuple[str, ...]:
        """Return what is wrong with every name that two plug-ins have."""
        self._discover()
        return tuple(self._disputes[name] for name in sorted(self._disputes))

    def __iter__(self) -> Iterator[tuple[str, T]]:
        """Iterate over names and plug-ins; disputed names are left out."""
        return iter([(name, self.get(name)) for name in self.names() if name not in self._disputes])

    def _is_own(self, plugin: T) -> bool:
        return f"{plugin.__module__}.".startswith(f"{self.package}.")

    def _discover(self) -> None:
        if not self._discovered:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
                importlib.import_module(f"{self.package}.{module.name}")
            self._discovered = True
        _outside.load()


def _called(plugin: object) -> str:
    """Return what a plug-in is called in messages: where its class or function stands."""
    return f"{plugin.__module__}.{getattr(plugin, '__qualname__', type(plugin).__qualname__)}"


class _Outside:
    """The plug-in modules from outside, loaded once per process.

    Attributes:
        is_loading: whether they are being imported.
        failed: module -> why it could not be imported.
    """

    def __init__(self) -> None:
        self.is_loading = False
        self.failed: dict[str, str] = {}
        self._is_started = False
        self._lock = threading.RLock()

    def load(self) -> None:
        """Import them, the first time. A module that fails is reported and left out, the others are kept."""
        with self._lock:
            # Set first, because a module from outside may itself ask a registry.
            if self._is_started:
                return
            self._is_started = self.is_loading = True
            for module, where in outside_modules().items():
                try:
                    importlib.import_module(module)
                except Exception as error:  # whatever a module from outside does, the platform's own plug-ins work
                    self.failed[module] = f"{type(error).__name__}: {error}"
                    logger.exception("plug-in module %r, named by %s, cannot be imported", module, where)
            self.is_loading = False


_outside = _Outside()


def outside_modules() -> dict[str, str]:
    """Return the plug-in modules from outside, and for each what names it."""
    modules = dict.fromkeys(plugin_modules(), PLUGINS_VARIABLE)
    for point in sorted(metadata.entry_points(group=ENTRY_POINTS)):
        modules.setdefault(point.module, f"the entry point {point.name!r} of the group {ENTRY_POINTS}")
    return modules


def failed_modules() -> Mapping[str, str]:
    """Return the plug-in modules from outside that could not be imported, and why."""
    _outside.load()
    return dict(_outside.failed)


def failures_note() -> str:
    """Return what to add to an error about a plug-in that is missing: the modules that could not be imported."""
    failed = "; ".join(f"{module} ({reason})" for module, reason in failed_modules().items())
    return f"; plug-in modules that cannot be imported: {failed}" if failed else ""


SOURCES: Registry[DataSource] = Registry("data source", "mlplatform.data.sources")
SPLITTERS: Registry[SplitterPlugin] = Registry("splitter", "mlplatform.datamodule.splitters")
TRANSFORMS: Registry[TransformPlugin] = Registry("transform", "mlplatform.preprocessing.transforms")
MODELS: Registry[ModelFamily] = Registry("model family", "mlplatform.models.families")
METRICS: Registry[MetricPlugin] = Registry("metric", "mlplatform.training.metrics")
RETRIEVALS: Registry[RetrievalMode] = Registry("retrieval mode", "mlplatform.features.retrieval.strategies")
DRIFT_TESTS: Registry[DriftTest] = Registry("drift test", "mlplatform.monitoring.drift_tests")
EXECUTORS: Registry[ExecutorPlugin] = Registry("tuning executor", "mlplatform.tuning.executors")
ALL: tuple[Registry[Any], ...] = (SOURCES, SPLITTERS, TRANSFORMS, MODELS, METRICS, RETRIEVALS, DRIFT_TESTS, EXECUTORS)


@dataclass(frozen=True)
class PluginUse:
    """One place where a configuration names a plug-in.

    Attributes:
        key: where the name stands, for example `model.family`.
        params_key: where its parameters stand.
        params: the parameters as they stand there.
        columns: the columns it is applied to, where that is said.
    """

    registry: Registry[Any]
    key: str
    name: str
    params_key: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()

    @property
    def section(self) -> str:
        """The first part of the key, for example `model`."""
        return self.key.partition(".")[0]

    @property
    def owner(self) -> str:
        """The key without its last part, for example `preprocessing.steps[0]`."""
        return self.key.rpartition(".")[0]
