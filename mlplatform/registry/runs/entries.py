"""Parameters, metrics and tags of a run, spelled so that MLflow takes them.

Columns, models and metrics are called what their owners call them, and MLflow allows few characters in a name. Whatever
is recorded under such a name goes through here, and whoever reads it back asks for `mlflow_name`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import math
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

NAME_LENGTH = 250
_REFUSED = re.compile(r"[^/\w.\- :]")
# A run's parameters are for telling runs apart in a list; the whole configuration is an artifact.
PARAM_LENGTH = 500
# MLflow takes no more at a time.
PARAMS_PER_CALL, METRICS_PER_CALL = 100, 1000
NOT_FINITE = "scores_without_a_number"


def mlflow_name(name: str) -> str:
    """Return the name under which MLflow holds what is called `name`: the same, wherever MLflow takes it.

    In other names every refused character is an underscore, and a digest at the end keeps names apart that are then
    equal: `Temperatur (°C)` becomes `Temperatur __C_-8912dad0`, in every run.
    """
    spelled = _REFUSED.sub("_", name)
    if posixpath.normpath(spelled) != spelled or spelled.startswith(("/", "..")) or spelled == ".":
        # MLflow takes names for relative paths, and refuses those that could be written in another way.
        spelled = re.sub(r"/|^\.+", "_", spelled)
    if spelled == name and len(name) <= NAME_LENGTH:
        return name
    mark = f"-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return spelled[: NAME_LENGTH - len(mark)] + mark


def log_params(values: Mapping[str, Any]) -> None:
    """Log parameters to the active run, cut to a length that lists can show."""
    import mlflow

    for part in _batches(values, PARAMS_PER_CALL):
        mlflow.log_params({mlflow_name(name): str(value)[:PARAM_LENGTH] for name, value in part.items()})


def set_tags(values: Mapping[str, str]) -> None:
    """Set tags of the active run."""
    import mlflow

    for part in _batches(values, PARAMS_PER_CALL):
        mlflow.set_tags({mlflow_name(name): value for name, value in part.items()})


def log_scores(values: Mapping[str, float], series: Mapping[str, Sequence[float]] | None = None) -> None:
    """Log scores to the active run, and series with one step per value, counted from 1.

    What is no finite number is not logged, since whoever lists runs could not tell it from a score: the tag
    `scores_without_a_number` names it, and a warning says so.
    """
    import time

    import mlflow
    from mlflow.entities import Metric

    found = [(name, value, 0) for name, value in values.items()]
    found += [(name, value, step) for name, steps in (series or {}).items() for step, value in enumerate(steps, 1)]
    now = int(time.time() * 1000)
    points = [Metric(mlflow_name(name), float(value), now, step) for name, value, step in found if math.isfinite(value)]
    run = mlflow.active_run()
    assert run is not None
    client = mlflow.MlflowClient()
    for start in range(0, len(points), METRICS_PER_CALL):
        client.log_batch(run.info.run_id, metrics=points[start : start + METRICS_PER_CALL])
    others = dict.fromkeys(name for name, value, _ in found if not math.isfinite(value))
    if others:
        logging.getLogger(__name__).warning(
            f"these scores are no finite numbers and were not recorded: {', '.join(others)}"
        )
        mlflow.set_tag(NOT_FINITE, json.dumps([mlflow_name(name) for name in others]))


def _batches(values: Mapping[str, Any], size: int) -> Iterator[dict[str, Any]]:
    entries = iter(values.items())
    while part := dict(itertools.islice(entries, size)):
        yield part


def scores_without_a_number(tags: Mapping[str, str]) -> frozenset[str]:
    """Return what a run with these tags measured as something that is no finite number, by MLflow name."""
    return frozenset(json.loads(tags.get(NOT_FINITE, "[]")))
