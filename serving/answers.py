"""From a prediction to the bytes of its answer and to its entry in the prediction log."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from mlplatform.datamodule import Float32
from mlplatform.models import Bounds
from mlplatform.monitoring import ServedPredictions
from mlplatform.registry import unreadable_columns
from serving.backend import Prediction
from serving.errors import ErrorDetail, ServingError, shown, unreadable

# NumPy arrays are written without a Python object per number; time stamps are UTC, written with a Z.
_JSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


def to_json(content: Any) -> bytes:
    """Return plain values and NumPy arrays as JSON."""
    return orjson.dumps(content, option=_JSON_OPTIONS)


def refuse_missing_numbers(prediction: Prediction) -> None:
    """Refuse to answer NaN or infinity, which JSON cannot hold and a client could not use.

    Raises:
        ServingError: 409 that names the entities with a number that the pair cannot read, if there are any; else 500
            that names the entities.
    """
    outputs, broken = prediction.outputs, prediction.is_broken
    if not broken.any():
        return
    places = np.flatnonzero(broken).tolist()
    ids = prediction.entity_ids.tolist()
    columns = {ids[place]: unreadable_columns(prediction.marks[place]) for place in places if prediction.marks}
    unread = [(entity, names) for entity, names in columns.items() if names]
    if unread:
        raise unreadable(unread)
    blamed = [ids[place] for place in places]
    details = [
        ErrorDetail(
            field="entities",
            found=f"NaN or infinity for {shown(entity)}",
            expected="finite predictions",
            action="check the entity's latest feature rows for missing values that preprocessing does not fill",
        )
        for entity in blamed[:20]
    ]
    message = (
        f"version {prediction.pair.version} of {prediction.pair.name!r} answered NaN or infinity for "
        f"{len(blamed)} of {len(outputs)} entities ({', '.join(map(shown, blamed[:5]))}); ask for the others, and "
        "check the features of these"
    )
    raise ServingError(500, "prediction_not_finite", message, details, entities=blamed)


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
        timestamps = prediction.times_ahead
    else:
        steps, timestamps = np.zeros(1, np.int64), prediction.origins[:, None]
        values = prediction.outputs.reshape(len(prediction.outputs), -1)
        if contract.task == "classification":
            best = values.argmax(axis=1)
            labels = [contract.classes[position] for position in best]
            values = np.take_along_axis(values, best[:, None], axis=1)
        values = values[:, None, :]
    logged = [
        Bounds(_logged_bound(prediction, lower), _logged_bound(prediction, upper), coverage)
        for lower, upper, coverage in prediction.answers.bounds
    ]
    main = logged[0] if logged else None
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
        lower=main and main.lower,
        upper=main and main.upper,
        coverage=main and main.coverage,
        others=logged[1:],
        observed=prediction.observed if contract.task == "forecast" else None,
        is_fallback=prediction.is_fallback,
        arm=prediction.arm,
        age_seconds=prediction.ages / np.timedelta64(1, "s"),
        request_row=None if contract.task == "forecast" else _places(prediction),
    )


def _places(prediction: Prediction) -> npt.NDArray[np.int64]:
    return np.arange(len(prediction.outputs)) if prediction.places is None else prediction.places


def _logged_bound(prediction: Prediction, bound: Float32) -> Float32:
    """Return one side of the intervals as (n, steps, targets), NaN for what stands in for a forecast."""
    per_value = bound if bound.ndim == 3 else bound.reshape(len(bound), 1, 1)
    replaced = prediction.is_fallback
    return np.where(replaced[:, None, None], np.nan, per_value) if replaced.any() else per_value


def _entities(prediction: Prediction) -> list[dict[str, Any]]:
    """Return what every answer says about an entity and its features, one object per entity."""
    # What has no time of its own has none in the answer: an invented one would look like an age.
    is_timeless = np.isnat(prediction.event_times).tolist()
    times = [None if absent else time for absent, time in zip(is_timeless, prediction.event_times, strict=True)]
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
    times = prediction.times_ahead
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
            **intervals,
        }
        for entity, share, reason, origin, moments, series, intervals in zip(
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


def _forecast_intervals(prediction: Prediction) -> list[dict[str, Any]]:
    """Return what an answer says of the prediction intervals of every entity; there are none for what stands in."""
    targets = prediction.pair.contract.targets

    def sides(bound: Float32) -> list[dict[str, Any]]:
        series = np.ascontiguousarray(bound.transpose(0, 2, 1))
        return [dict(zip(targets, one, strict=True)) for one in series]

    found = _intervals(prediction, sides)
    stand_in = dict.fromkeys(found[0]) if found else {}
    replaced = prediction.is_fallback.tolist()
    return [stand_in if is_fallback else told for told, is_fallback in zip(found, replaced, strict=True)]


def _intervals(prediction: Prediction, sides: Callable[[Float32], Sequence[Any]]) -> list[dict[str, Any]]:
    """Return the main interval of every answer as `interval`, and all where there are several as `intervals`.

    Parameters:
        sides: returns what an answer says of one bound, for every answer.
    """
    bounds = prediction.answers.bounds
    if not bounds:
        return [{"interval": None}] * len(prediction.outputs)
    by_coverage = {
        coverage: [
            {"coverage": coverage, "lower": low, "upper": high}
            for low, high in zip(sides(lower), sides(upper), strict=True)
        ]
        for lower, upper, coverage in bounds
    }
    if len(bounds) == 1:
        return [{"interval": interval} for interval in by_coverage[bounds[0].coverage]]
    # The narrowest first.
    listed = zip(*(by_coverage[coverage] for coverage in sorted(by_coverage)), strict=True)
    return [
        {"interval": interval, "intervals": intervals}
        for interval, intervals in zip(by_coverage[bounds[0].coverage], listed, strict=True)
    ]


def _values(prediction: Prediction) -> dict[str, Any]:
    rows = zip(_entities(prediction), prediction.outputs, _intervals(prediction, list), strict=True)
    return {"predictions": [{**entity, "value": value, **intervals} for entity, value, intervals in rows]}


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
