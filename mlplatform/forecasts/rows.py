"""From answers to the rows of the table: one per entity, target and step, in the words of the HTTP answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlplatform.config import ENTITY
from mlplatform.datamodule import Float32, Int64
from mlplatform.forecasts.answering import Answered, LeftOut
from mlplatform.registry import Contract, interval_lists, interval_type
from mlplatform.registry.pairs import PairInfo

if TYPE_CHECKING:
    import pyarrow as pa

# The column of pairs with several coverages.
INTERVALS = "intervals"


def forecast_schema(*, has_text_ids: bool, coverages: Sequence[float] = ()) -> pa.Schema:
    """Return the columns of the table; numbers are those of the model, as 32-bit floats.

    Parameters:
        coverages: of the pair's intervals.
    """
    import pyarrow as pa

    moment = pa.timestamp("ns", tz="UTC")
    mark = pa.struct([("kind", pa.string()), ("column", pa.string()), ("rows", pa.int64())])
    return pa.schema(
        [
            ("experiment", pa.string()),
            (ENTITY, pa.string() if has_text_ids else pa.int64()),
            ("target", pa.string()),
            ("step", pa.int32()),
            ("timestamp", moment),
            ("value", pa.float32()),
            ("lower", pa.float32()),
            ("upper", pa.float32()),
            ("coverage", pa.float64()),
            ("label", pa.string()),
            ("probabilities", pa.map_(pa.string(), pa.float32())),
            ("version", pa.int64()),
            ("pair_id", pa.string()),
            ("window_end", moment),
            ("event_time", moment),
            ("age_seconds", pa.float64()),
            ("stale", pa.bool_()),
            ("observed", pa.float64()),
            ("fallback", pa.bool_()),
            ("marks", pa.list_(mark)),
            *([(INTERVALS, interval_type(pa.float32()))] if len(coverages) > 1 else []),
        ]
    )


def forecast_table(pair: PairInfo, answered: Answered, schema: pa.Schema) -> pa.Table:
    """Return the rows of answers: entity after entity, target after target, step after step.

    A row of a table has the step 0 and its own time; of a classification, `value` is the probability of `label`. A pair
    with several coverages has the intervals of all of them in `intervals`, that of the main one included.
    """
    import pyarrow as pa

    contract, panel = pair.contract, answered.panel
    steps, times = _moments(contract, answered.origins)
    count, targets = len(panel.entity_ids), len(contract.targets)
    entity, target, step = (places.reshape(-1) for places in np.indices((count, targets, len(steps))))
    is_fallback = answered.is_fallback[entity]
    marks = pa.array([[vars(mark) for mark in found] for found in answered.marks], schema.field("marks").type)
    values = {
        "experiment": pa.repeat(contract.experiment, len(entity)),
        ENTITY: pa.array(panel.entity_ids.tolist(), schema.field(ENTITY).type).take(entity),
        "target": pa.array(contract.targets, pa.string()).take(target),
        "step": steps[step].astype(np.int32),
        "timestamp": times[entity, step],
        **_numbers(contract, answered, is_fallback),
        **_labels(contract, answered.answers.point),
        "version": np.full(len(entity), pair.version, dtype=np.int64),
        "pair_id": pa.repeat(pair.pair_id, len(entity)),
        "window_end": answered.origins[entity],
        "event_time": panel.event_times[entity],
        "age_seconds": _seconds(panel.ages)[entity],
        "stale": panel.is_stale[entity],
        "observed": answered.observed[entity],
        "fallback": is_fallback,
        "marks": marks.take(entity),
    }
    if INTERVALS in schema.names:
        bounds = [each.map(_flat) for each in answered.answers.by_coverage]
        values[INTERVALS] = interval_lists(bounds, is_fallback, pa.float32()) if bounds else pa.nulls(len(entity))
    rows = len(entity)
    arrays = [
        _typed(values[field.name], field.type) if field.name in values else pa.nulls(rows, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def left_out_table(left_out: list[LeftOut], schema: pa.Schema) -> pa.Table:
    """Return the entities without a forecast."""
    import pyarrow as pa

    columns = {
        ENTITY: pa.array([each.entity for each in left_out], schema.field(ENTITY).type),
        "reason": pa.array([each.reason for each in left_out], pa.string()),
        "found": pa.array([each.found for each in left_out], pa.string()),
    }
    return pa.table(columns)


def _moments(contract: Contract, origins: npt.NDArray[np.datetime64]) -> tuple[Int64, npt.NDArray[np.datetime64]]:
    """Return the steps, and the moments that are predicted, of shape (entities, steps)."""
    if contract.task != "forecast":
        return np.zeros(1, dtype=np.int64), origins[:, None]
    steps = np.arange(1, contract.horizon + 1, dtype=np.int64)
    return steps, contract.moments_ahead(origins)


def _numbers(contract: Contract, answered: Answered, is_fallback: npt.NDArray[np.bool_]) -> dict[str, Any]:
    answers = answered.answers
    if contract.task == "classification":
        return {"value": answers.point.max(axis=1)}
    found: dict[str, Any] = {"value": _flat(answers.point)}
    for lower, upper, coverage in answers.bounds[:1]:
        found |= {"lower": _flat(lower), "upper": _flat(upper)}
        # What stands in for a forecast has no interval.
        found["coverage"] = np.where(is_fallback, np.nan, coverage)
    return found


def _labels(contract: Contract, point: Float32) -> dict[str, Any]:
    if contract.task != "classification":
        return {}
    return {
        "label": [contract.classes[place] for place in point.argmax(axis=1)],
        "probabilities": [list(zip(contract.classes, row, strict=True)) for row in point],
    }


def _flat(values: Float32) -> Float32:
    """Return values of shape (entities, steps, targets), or (entities,), in the order of the rows."""
    return values if values.ndim == 1 else values.transpose(0, 2, 1).reshape(-1)


def _seconds(ages: npt.NDArray[np.timedelta64]) -> npt.NDArray[np.float64]:
    seconds: npt.NDArray[np.float64] = ages / np.timedelta64(1, "s")
    return np.round(seconds, 3)


def _typed(values: Any, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values.cast(kind) if pa.types.is_null(values.type) else values
    if isinstance(values, np.ndarray):
        # NaN is no number, as in the answers of the servers; time stamps are UTC.
        return pa.array(values, from_pandas=True).cast(kind)
    return pa.array(values, kind)
