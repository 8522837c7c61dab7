"""Why a pair answered what it did, in the units of its answers and by the names of its raw columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from mlplatform.datamodule import Panel
from mlplatform.models import Contributions, Float64
from mlplatform.preprocessing import TransformManager
from mlplatform.registry.forecaster import Forecaster

# Relative to the largest number at hand: what float32 leaves of a straight line.
_STRAIGHT = 1e-4


def explain(forecaster: Forecaster, panel: Panel) -> tuple[dict[str, Any], ...]:
    """Return an explanation of every answer, as plain values and arrays, in the order of the entities.

    Of a tree family (`method` `shap`): `features`, and per target (of a classification, per class) the `base` and the
    `contributions` that add up to the answer, or to what it was before the limits of the contract cut it. `space` says
    in what they add up: `original` units, `preprocessed` ones where the target's transform is no straight line,
    `log_odds` or `scores` of classes. Of a network (`variable_selection`): `weights` of variables.

    Raises:
        CannotExplainError: if the model has no such explanation.
        ValueError: as `Forecaster.preprocess` does.
    """
    found = forecaster.model.explain(forecaster.preprocess(panel))
    if not isinstance(found, Contributions):
        return tuple({"method": "variable_selection", "weights": asdict(each)} for each in found)
    names = forecaster.contract.classes or forecaster.contract.targets
    base, values, space = _in_units(forecaster, found)
    features = [{name: value for name, value in vars(each).items() if value is not None} for each in found.features]
    head = {"method": "shap", "space": space, "features": features}
    return tuple(
        {**head, "base": _by_name(names, base[place], 0), "contributions": _by_name(names, values[place], 1)}
        for place in range(len(base))
    )


def _in_units(forecaster: Forecaster, found: Contributions) -> tuple[Float64, Float64, str]:
    """Return base and shares, in the units of the answers where that keeps their sums."""
    contract = forecaster.contract
    if found.space != "output":
        return found.base, found.values, found.space
    if contract.task == "classification":
        return found.base, found.values, "probability"
    is_forecast = contract.task == "forecast"
    points = np.stack([found.base, found.base + found.values.sum(axis=-1)])
    lines = [
        _line(forecaster.preprocessor, target, points[..., place] if is_forecast else points)
        for place, target in enumerate(contract.targets)
    ]
    known = [line for line in lines if line is not None]
    if len(known) < len(lines):
        return found.base, found.values, "preprocessed"
    offsets, slopes = (np.array(side) for side in zip(*known, strict=True))
    if not is_forecast:
        offsets, slopes = offsets[0], slopes[0]
    return offsets + slopes * found.base, found.values * np.expand_dims(slopes, -1), "original"


def _line(manager: TransformManager, target: str, points: Float64) -> tuple[float, float] | None:
    """Return offset and slope of the way back to original units; `None` if it is no straight line at the points."""
    offset, one = manager.invert(np.array([0, 1], dtype=np.float32), target).astype(np.float64)
    slope = one - offset
    back = manager.invert(points.astype(np.float32), target).astype(np.float64)
    scale = np.abs(back).max(initial=abs(offset)) + abs(slope)
    is_straight = np.abs(offset + slope * points - back).max(initial=0.0) <= _STRAIGHT * scale
    return (float(offset), float(slope)) if is_straight else None


def _by_name(names: tuple[str, ...], values: Float64, inner: int) -> Mapping[str, Any] | Float64 | float:
    """Return numbers by target or class; those of a regression as they are.

    Parameters:
        inner: number of axes behind that of the names.
    """
    if values.ndim == inner:
        return float(values) if not inner else np.ascontiguousarray(values)
    moved = np.moveaxis(values, -1 - inner, 0)
    parts = [np.ascontiguousarray(part) if part.ndim else float(part) for part in moved]
    return dict(zip(names, parts, strict=True))
