"""From a prediction to the bytes of its answer and to its entry in the prediction log."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from mlplatform.monitoring import ServedPredictions
from serving.backend import Prediction
from serving.errors import ErrorDetail, ServingError, shown

# NumPy arrays are written without a Python object per number; time stamps are UTC, written with a Z.
_JSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


def to_json(content: Any) -> bytes:
    """Return plain values and NumPy arrays as JSON."""
    return orjson.dumps(content, option=_JSON_OPTIONS)


def refuse_missing_numbers(prediction: Prediction) -> None:
    """Refuse to answer NaN or infinity, which JSON cannot hold and a client could not use.

    Raises:
        ServingError: 500 that names the entities.
    """
    outputs = prediction.outputs
    broken = ~np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)
    for side in prediction.answers[1:3]:
        if side is not None:
            # What stands in for a forecast has no interval.
            broken |= ~np.isfinite(side.reshape(len(outputs), -1)).all(axis=1) & ~prediction.is_fallback
    if not broken.any():
        return
    ids = prediction.entity_ids[broken].tolist()
    details = [
        ErrorDetail(
            field="entities",
            found=f"NaN or infinity for {shown(entity)}",
            expected="finite predictions",
            action="check the entity's latest feature rows for missing values that preprocessing does not fill",
        )
        for entity in ids[:20]
    ]
    message = (
        f"version {prediction.pair.version} of {prediction.pair.name!r} answered NaN or infinity for "
        f"{len(ids)} of {len(outputs)} entities ({', '.join(map(shown, ids[:5]))}); ask for the others, and check the "
        "features of these"
    )
    raise ServingError(500, "prediction_not_finite", message, details, entities=ids)


def answer(prediction: Prediction) -> dict[str, Any]:
    """Return the answer as plain values and arrays; its form is a `PredictionAnswer` of `serving.schemas`."""
    pair = prediction.pair
    head = {
        "model": pair.name,
        "experiment": pair.contract.experiment,
        "version": pair.version,
        "pair_id": pair.pair_id,
        "arm": prediction.arm,
    }
    build = {"forecast": _forecasts, "regression": _values, "classification": _classes}[pair.contract.task]
    return {**head, **build(prediction)}


def ages_seconds(prediction: Prediction) -> list[float | None]:
    """Return how old the latest features of every entity were when they were read, in seconds; `None` if unknown."""
    seconds: npt.NDArray[np.float64] = prediction.ages / np.timedelta64(1, "s")
    return [None if math.isnan(age) else age for age in np.round(seconds, 3).tolist()]


def served_predictions(prediction: Prediction, request_id: str, now: dt.datetime) -> ServedPredictions:
    """Return the prediction as an entry of the prediction log."""
    pair, contract = prediction.pair, prediction.pair.contract
    labels: list[str] | None = None
    if contract.task == "forecast":
        values, steps = prediction.outputs, np.arange(1, contract.horizon + 1)
        timestamps = forecast_times(prediction)
    else:
        steps, timestamps = np.zeros(1, np.int64), prediction.origins[:, None]
        values = prediction.outputs.reshape(len(prediction.outputs), -1)
        if contract.task == "classification":
            best = values.argmax(axis=1)
            labels = [contract.classes[position] for position in best]
            values = np.take_along_axis(values, best[:, None], axis=1)
        values = values[:, None, :]
    _, lower, upper, coverage = prediction.answers
    return ServedPredictions(
        served_at=now,
        request_id=request_id,
        version=pair.version,
        pair_id=pair.pair_id,
        entity_ids=[str(entity) for entity in prediction.entity_ids.tolist()],
        origins=prediction.origins,
        targets=contract.targets,
        steps=steps,
        timestamps=timestamps,
        values=values,
        labels=labels,
        lower=_logged_bound(prediction, lower),
        upper=_logged_bound(prediction, upper),
        coverage=coverage,
        observed=prediction.observed if contract.task == "forecast" else None,
        is_fallback=prediction.is_fallback,
        arm=prediction.arm,
        age_seconds=prediction.ages / np.timedelta64(1, "s"),
    )


def _logged_bound(prediction: Prediction, bound: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
    """Return one side of the intervals as (n, steps, targets), NaN for what stands in for a forecast."""
    if bound is None:
        return None
    per_value = bound if bound.ndim == 3 else bound.reshape(len(bound), 1, 1)
    return np.where(prediction.is_fallback[:, None, None], np.nan, per_value)


def _entities(prediction: Prediction) -> list[dict[str, Any]]:
    """Return what every answer says about an entity and its features, one object per entity."""
    # What has no time of its own has none in the answer: an invented one would look like an age.
    times = [None if np.isnat(time) else time for time in prediction.event_times]
    rows = zip(
        prediction.entity_ids.tolist(),
        times,
        ages_seconds(prediction),
        prediction.is_stale.tolist(),
        prediction.marks,
        prediction.told_by,
        strict=True,
    )
    entities = [
        {
            "entity": entity,
            "event_time": event_time,
            "age_seconds": age,
            "stale": stale,
            "marks": marks,
            "arm": arm,
            "version": version,
        }
        for entity, event_time, age, stale, marks, (arm, version) in rows
    ]
    for entity, explanation in zip(entities, prediction.explanations, strict=False):
        entity["explanation"] = explanation
    return entities


def _forecasts(prediction: Prediction) -> dict[str, Any]:
    targets = prediction.pair.contract.targets
    times = forecast_times(prediction)
    # orjson writes contiguous arrays only: entity, then target, then step.
    values = np.ascontiguousarray(prediction.outputs.transpose(0, 2, 1))
    forecasts = [
        {
            **entity,
            "observed": share,
            "fallback": reason is not None,
            "fallback_reason": reason,
            "window_end": origin,
            "timestamps": moments,
            "values": dict(zip(targets, series, strict=True)),
            "interval": interval,
        }
        for entity, share, reason, origin, moments, series, interval in zip(
            _entities(prediction),
            prediction.observed.tolist(),
            prediction.fallback_reasons,
            prediction.origins,
            times,
            values,
            _forecast_intervals(prediction),
            strict=True,
        )
    ]
    return {"forecasts": forecasts}


def _forecast_intervals(prediction: Prediction) -> list[dict[str, Any] | None]:
    """Return the prediction interval of every entity; `None` without calibration, and for what stands in for one."""
    _, lower, upper, coverage = prediction.answers
    if lower is None or upper is None:
        return [None] * len(prediction.outputs)
    targets = prediction.pair.contract.targets
    sides = (np.ascontiguousarray(side.transpose(0, 2, 1)) for side in (lower, upper))
    return [
        None
        if is_fallback
        else {
            "coverage": coverage,
            "lower": dict(zip(targets, low, strict=True)),
            "upper": dict(zip(targets, high, strict=True)),
        }
        for low, high, is_fallback in zip(*sides, prediction.is_fallback.tolist(), strict=True)
    ]


def _values(prediction: Prediction) -> dict[str, Any]:
    _, lower, upper, coverage = prediction.answers
    intervals: list[dict[str, Any] | None] = [None] * len(prediction.outputs)
    if lower is not None and upper is not None:
        intervals = [
            {"coverage": coverage, "lower": low, "upper": high} for low, high in zip(lower, upper, strict=True)
        ]
    rows = zip(_entities(prediction), prediction.outputs, intervals, strict=True)
    return {"predictions": [{**entity, "value": value, "interval": interval} for entity, value, interval in rows]}


def _classes(prediction: Prediction) -> dict[str, Any]:
    classes = prediction.pair.contract.classes
    best = prediction.outputs.argmax(axis=1)
    rows = zip(_entities(prediction), best, prediction.outputs, strict=True)
    return {
        "predictions": [
            {
                **entity,
                "label": classes[position],
                "probabilities": dict(zip(classes, probabilities, strict=True)),
            }
            for entity, position, probabilities in rows
        ]
    }


def forecast_times(prediction: Prediction) -> npt.NDArray[np.datetime64]:
    """Return the moments that are predicted, of shape (n, horizon)."""
    return prediction.pair.contract.moments_ahead(prediction.origins)
