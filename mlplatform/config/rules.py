"""The rules of plug-ins: one loop asks every plug-in that a configuration names what it demands.

No plug-in's name and no plug-in's parameter stands here; what a plug-in demands, it says itself in its method `check`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import ValidationError

from mlplatform.config.messages import lines_of
from mlplatform.plugins import PluginError, PluginUse


def plugin_mistakes(uses: Iterable[PluginUse], config: object, task: str | None = None) -> Iterator[str]:
    """Yield what is wrong with the plug-ins that a configuration names.

    A plug-in must be known, fit the task and take its parameters. Only then it is asked for more: its `check`, if it
    has one, is called with the use, the validated parameters and the configuration.

    Parameters:
        config: what the plug-ins are asked about: an experiment, or a dataset for its source.
        task: of the experiment; `None` where plug-ins do not differ by task.
    """
    for use in uses:
        try:
            plugin = use.registry.get(use.name)
        except PluginError as error:
            yield f"{use.key}: {error}"
            continue
        found = [*_task_mistakes(plugin, use, task), *params_mistakes(use)]
        yield from found or _demands(plugin, use, config)


def params_mistakes(use: PluginUse) -> list[str]:
    """Return what is wrong with the parameters that a plug-in is given, one line per parameter.

    Nothing for a plug-in that is not known: that is another mistake.
    """
    try:
        plugin: Any = use.registry.get(use.name)
        _validated(plugin, use)
    except ValidationError as error:
        return lines_of(error, plugin.Params, prefix=use.params_key)
    except PluginError:
        pass
    return []


def _task_mistakes(plugin: Any, use: PluginUse, task: str | None) -> Iterator[str]:
    tasks = getattr(plugin, "tasks", None)
    if task is not None and tasks is not None and task not in tasks:
        yield f"{use.key} {use.name!r} does not fit task {task!r}; it supports: {', '.join(sorted(tasks))}"


def _demands(plugin: Any, use: PluginUse, config: object) -> list[str]:
    check = getattr(plugin, "check", None)
    if check is None:
        return []
    try:
        return list(check(use, _validated(plugin, use), config))
    except ValueError as error:
        return [str(error)]
    except Exception as error:  # a plug-in with an error in it must not keep the other mistakes from being told
        return [f"{use.key}: {use.name!r} fails to check the configuration: {type(error).__name__}: {error}"]


def _validated(plugin: Any, use: PluginUse) -> Any:
    """Return the parameters as the plug-in has them, `None` if its kind has none."""
    return plugin.Params.model_validate(dict(use.params)) if hasattr(plugin, "Params") else None
