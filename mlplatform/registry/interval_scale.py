"""By how much a pair's prediction intervals are widened or narrowed where it is at work, step by step.

What was calibrated before a pair was promoted holds as long as the world is as restless as then. The adaptation in
`monitoring` learns from what came true; here is the small file that it leaves, which servers, batches and the pyfunc
read.
`Answers.scaled` applies it. Without the file, or if it is about another pair, intervals are as they were calibrated.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlplatform.models import Model
from mlplatform.registry.forecaster import Scales
from mlplatform.settings import Settings
from mlplatform.state_files import parsed, read_state
from mlplatform.storage import atomic_file


@dataclass(frozen=True)
class IntervalScale:
    """The file.

    Attributes:
        pair_id, version: whose intervals they are.
        calibration: digest of the calibration behind them, by which a pair without its id knows them.
        scales: per coverage of the pair and step: the distance of either bound from the point prediction is this many
            times the calibrated one.
        levels: per coverage and step: the share of misses that the intervals aim at now, alpha of the method.
        until: the newest moment that was learnt from, ISO 8601.
        history: since when (ISO 8601) which scales were in force, oldest first.
    """

    pair_id: str
    version: int
    calibration: str
    scales: Scales
    levels: tuple[tuple[float, ...], ...]
    until: str
    history: tuple[tuple[str, Scales], ...]


def scale_path(settings: Settings, experiment: str) -> Path:
    """Return where the scale of an experiment's champion is kept."""
    return settings.home / "monitoring" / experiment / "interval_scale.json"


def read_scale(settings: Settings, experiment: str) -> IntervalScale | None:
    """Return the scale that was learnt last; `None` if intervals are as they were calibrated.

    So they are with a damaged file, which a warning names, until the adaptation writes it anew.
    """
    otherwise = (
        f"intervals are as they were calibrated until monitor_{experiment} learns the scale again; run it, or restore "
        "the file"
    )
    return read_state(scale_path(settings, experiment), _parsed, otherwise)


def _parsed(text: str) -> IntervalScale:
    """Return what a file says.

    Raises:
        ValueError, KeyError, TypeError: if it is none, or its scales are no distances.
    """
    values = json.loads(text)
    history = [(since, _by_coverage(scales)) for since, scales in values["history"]]
    by_coverage = {name: _by_coverage(values[name]) for name in ("scales", "levels")}
    scale = parsed(json.dumps(values | by_coverage | {"history": history}), IntervalScale)
    for scales in (scale.scales, *(scales for _, scales in scale.history)):
        if len(scales) != len(scale.scales) or not all(0 < each < math.inf for steps in scales for each in steps):
            raise ValueError("its scales are not positive numbers for every coverage")
    if any(dt.datetime.fromisoformat(since).tzinfo is None for since, _ in scale.history):
        raise ValueError("its history has times without a zone")
    return scale


def _by_coverage(values: list[Any]) -> list[list[float]]:
    """Return numbers per coverage and step; files of earlier versions have those of one coverage."""
    is_one = bool(values) and not isinstance(values[0], list)
    return [values] if is_one else values


def write_scale(scale: IntervalScale | None, settings: Settings, experiment: str) -> None:
    """Keep a scale, or have intervals be as they were calibrated."""
    path = scale_path(settings, experiment)
    if scale is None:
        path.unlink(missing_ok=True)
        return
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(asdict(scale)))


def scales_of_pair(settings: Settings, experiment: str, pair_id: str) -> Scales | None:
    """Return the scales in force for a pair, of shape (coverages, horizon)."""
    found = read_scale(settings, experiment)
    return found.scales if found is not None and found.pair_id == pair_id else None


def scales_of_model(settings: Settings, experiment: str, model: Model) -> Scales | None:
    """Return the scales in force for a model whose pair is not known."""
    found = read_scale(settings, experiment)
    return found.scales if found is not None and found.calibration == calibration_digest(model) else None


def calibration_digest(model: Model) -> str | None:
    """Return a digest of a model's calibration, which two trainings never share; `None` without one."""
    if model.calibration is None:
        return None
    return hashlib.sha256(model.calibration.to_json().encode()).hexdigest()
