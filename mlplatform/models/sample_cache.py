"""What models keep beside samples between fits: the latest few of a kind, so that trials share without piling up."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

KEPT = 2

Value = TypeVar("Value")


def keep_latest(cache: dict[Any, Any], kind: str, setting: Hashable, make: Callable[[], Value]) -> Value:
    """Return the value of a kind for a setting, made if it is not among the `KEPT` latest of its kind.

    Parameters:
        cache: of the samples that the value is derived from.
    """
    key = (kind, setting)
    # Taken out and put back: the order of the cache is the order of use.
    value: Value = cache.pop(key) if key in cache else make()
    cache[key] = value
    kept = [other for other in cache if isinstance(other, tuple) and other[0] == kind]
    for oldest in kept[:-KEPT]:
        del cache[oldest]
    return value
