"""What was served, and the rows of the log that it makes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlplatform.models import Bounds
from mlplatform.registry import interval_lists, interval_type

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = (
    "served_at",
    "request_id",
    "experiment",
    "version",
    "pair_id",
    "entity_id",
    "origin",
    "target",
    "step",
    "event_timestamp",
    "value",
    "label",
    "lower",
    "upper",
    "coverage",
    "observed",
    "is_fallback",
    "arm",
    "age_seconds",
    "intervals",
    "request_row",
)
# Files of earlier versions end with `label`.
FIRST_COLUMNS = COLUMNS[: COLUMNS.index("label") + 1]
PRODUCTION_ARM = "production"
# Columns that hold one number or truth per value, and per entity; unknown ones are null.
_PER_VALUE = ("lower", "upper")
_PER_ENTITY = ("observed", "is_fallback", "age_seconds", "request_row")


@dataclass(frozen=True)
class ServedPredictions:
    """The predictions of one request, for n entities.

    Attributes:
        served_at: when the answer was made, in UTC.
        request_id: the request's `x-request-id`.
        version, pair_id: the pair that answered.
        entity_ids: of shape (n,), as text.
        origins: of shape (n,), datetime64[ns] in UTC: the last moment the prediction looked at; NaT of rows without a
            time.
        targets: names of the targets.
        steps: of shape (steps,): 1 to horizon for a forecast, 0 for a tabular prediction.
        timestamps: of shape (n, steps), datetime64[ns] in UTC: the moment that is predicted.
        values: of shape (n, steps, targets), in original units; for classification the probability of `labels`.
        labels: of shape (n,): the predicted classes; `None` unless the task is classification.
        lower, upper: of the shape of `values`: the bounds of the prediction intervals; NaN, or `None` for all, where
            there is none.
        coverage: share of truths that the intervals are meant to cover; `None` without intervals.
        others: the bounds of further coverages, alike.
        request_row: of shape (n,): which of the rows of the request each prediction is of; `None` of forecasts.
        observed: of shape (n,): the share of each lookback that was measured; `None` if unknown.
        is_fallback: of shape (n,): whether the last measured value stands in for the model's forecast; `None` if
            unknown.
        arm: which of the pairs that share the traffic answered.
        age_seconds: of shape (n,): how old the newest row of each answer was, in seconds; NaN, or `None` for all, where
            that is unknown.
    """

    served_at: dt.datetime
    request_id: str
    version: int
    pair_id: str
    entity_ids: Sequence[str]
    origins: npt.NDArray[np.datetime64]
    targets: tuple[str, ...]
    steps: npt.NDArray[np.int64]
    timestamps: npt.NDArray[np.datetime64]
    values: npt.NDArray[np.floating[Any]]
    labels: Sequence[str] | None = None
    lower: npt.NDArray[np.floating[Any]] | None = None
    upper: npt.NDArray[np.floating[Any]] | None = None
    coverage: float | None = None
    observed: npt.NDArray[np.floating[Any]] | None = None
    is_fallback: npt.NDArray[np.bool_] | None = None
    arm: str = PRODUCTION_ARM
    age_seconds: npt.NDArray[np.floating[Any]] | None = None
    others: Sequence[Bounds] = ()
    request_row: npt.NDArray[np.int64] | None = None

    @property
    def rows(self) -> int:
        """Number of log rows these predictions make."""
        return self.values.size

    @property
    def date(self) -> dt.date:
        """The day in UTC on which they were served."""
        return utc(self.served_at).date()


def utc(moment: dt.datetime) -> dt.datetime:
    """Return the moment in UTC; a naive one is taken as UTC."""
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


@dataclass(frozen=True)
class LogFormat:
    """The rows of a log that is kept in part files.

    Attributes:
        schema: the columns; called when it is needed, for Arrow is heavy.
        required: those that every file has; files of earlier versions may lack the others.
        moment: the column by whose day rows are filed.
    """

    schema: Callable[[], pa.Schema]
    required: tuple[str, ...]
    moment: str


def log_schema() -> pa.Schema:
    """Return the columns of the log and their types."""
    import pyarrow as pa

    moment = pa.timestamp("ns", tz="UTC")
    types = {
        **dict.fromkeys(COLUMNS, pa.string()),
        **dict.fromkeys(("served_at", "origin", "event_timestamp"), moment),
        "version": pa.int64(),
        **dict.fromkeys(("step", "request_row"), pa.int32()),
        **dict.fromkeys(("value", "lower", "upper", "coverage", "observed", "age_seconds"), pa.float64()),
        "is_fallback": pa.bool_(),
        "intervals": interval_type(pa.float64()),
    }
    return pa.schema([(name, types[name]) for name in COLUMNS])


PREDICTIONS = LogFormat(log_schema, FIRST_COLUMNS, "served_at")


def log_table(experiment: str, batch: Sequence[ServedPredictions]) -> pa.Table:
    """Return the log rows of some requests, request after request, entity after entity, step after step.

    Each column is built for all requests at once: a table per request costs more than most requests themselves.

    Raises:
        ValueError, TypeError: if the parts of some predictions do not fit together.
    """
    import pyarrow as pa

    if not batch:
        return log_schema().empty_table()
    _check_shapes(batch)
    shapes = np.array([item.values.shape for item in batch], dtype=np.int64)
    place, entities, rows = _Places(shapes), shapes[:, 0], shapes.prod(axis=1)
    served_at = pa.array([utc(item.served_at) for item in batch], pa.timestamp("us", tz="UTC"))
    columns = {
        "served_at": served_at.cast(pa.timestamp("ns", tz="UTC")).take(place.request),
        "request_id": pa.array([item.request_id for item in batch], pa.string()).take(place.request),
        "experiment": pa.repeat(experiment, len(place.request)),
        "version": np.array([item.version for item in batch], np.int64)[place.request],
        "pair_id": pa.array([item.pair_id for item in batch], pa.string()).take(place.request),
        "entity_id": _texts([item.entity_ids for item in batch]).take(place.entity),
        "origin": _joined([item.origins for item in batch], "datetime64[ns]")[place.entity],
        "target": _texts([item.targets for item in batch]).take(place.target),
        "step": _joined([item.steps for item in batch], "int32")[place.step],
        "event_timestamp": _joined([item.timestamps for item in batch], "datetime64[ns]")[place.moment],
        "value": _joined([item.values for item in batch], "float64"),
        "label": _texts([_labels(item) for item in batch]).take(place.entity),
        **{name: _known([getattr(item, name) for item in batch], rows) for name in _PER_VALUE},
        "coverage": pa.array([item.coverage for item in batch], pa.float64()).take(place.request),
        **{name: _known([getattr(item, name) for item in batch], entities, place.entity) for name in _PER_ENTITY},
        "arm": pa.array([item.arm for item in batch], pa.string()).take(place.request),
        "intervals": _intervals(batch, len(place.request)),
    }
    wanted = log_schema()
    return pa.table([pa.array(columns[field.name]).cast(field.type) for field in wanted], schema=wanted)


class _Places:
    """Where each row finds its values: positions in what is one per request, entity, moment, step and target.

    Parameters:
        shapes: of shape (requests, 3): entities, steps and targets of each request.
    """

    def __init__(self, shapes: npt.NDArray[np.int64]) -> None:
        entities, steps, targets = shapes.T
        rows = entities * steps * targets
        self.request = np.repeat(np.arange(len(shapes)), rows)
        row = np.arange(len(self.request)) - _starts(rows)[self.request]
        moment, target = np.divmod(row, targets[self.request])
        entity, step = np.divmod(moment, steps[self.request])
        self.entity = _starts(entities)[self.request] + entity
        self.moment = _starts(entities * steps)[self.request] + moment
        self.step = _starts(steps)[self.request] + step
        self.target = _starts(targets)[self.request] + target


def _starts(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    starts: npt.NDArray[np.int64] = np.cumsum(counts) - counts
    return starts


def _check_shapes(batch: Sequence[ServedPredictions]) -> None:
    """Refuse parts of other lengths: joined with those of other requests they would move these to other rows."""
    for item in batch:
        entities, steps, targets = item.values.shape
        if (len(item.entity_ids), len(item.origins), len(item.steps), len(item.targets)) != (
            entities,
            entities,
            steps,
            targets,
        ):
            raise _misfit(
                item,
                f"{len(item.entity_ids)} entities, {len(item.origins)} origins, {len(item.steps)} steps and "
                f"{len(item.targets)} targets",
            )
        wanted = {
            "timestamps": (entities, steps),
            "labels": (entities,),
            **dict.fromkeys(_PER_VALUE, item.values.shape),
            **dict.fromkeys(_PER_ENTITY, (entities,)),
        }
        for name, shape in wanted.items():
            part = getattr(item, name)
            if part is not None and np.shape(part) != shape:
                raise _misfit(item, f"{name} of shape {np.shape(part)}")
        for lower, upper, coverage in item.others:
            if not lower.shape == upper.shape == item.values.shape:
                raise _misfit(item, f"bounds of coverage {coverage} of shapes {lower.shape} and {upper.shape}")


def _misfit(item: ServedPredictions, found: str) -> ValueError:
    return ValueError(f"request {item.request_id!r} has values of shape {item.values.shape}, but {found}")


def _labels(item: ServedPredictions) -> Sequence[str | None]:
    return [None] * len(item.entity_ids) if item.labels is None else item.labels


def _intervals(batch: Sequence[ServedPredictions], rows: int) -> pa.Array:
    """Return the intervals of all coverages, the narrowest first, of answers with more than one; null elsewhere."""
    import pyarrow as pa

    kind = interval_type(pa.float64())
    if not any(item.others for item in batch):
        return pa.nulls(rows, kind)
    parts = []
    for item in batch:
        if not item.others or item.lower is None or item.upper is None or item.coverage is None:
            parts.append(pa.nulls(item.rows, kind))
            continue
        bounds = sorted((Bounds(item.lower, item.upper, item.coverage), *item.others), key=lambda each: each.coverage)
        flat = [each.map(lambda values: values.reshape(-1)) for each in bounds]
        parts.append(interval_lists(flat, np.isnan(item.lower.reshape(-1)), pa.float64()))
    return pa.concat_arrays(parts)


def _joined(arrays: Sequence[npt.NDArray[Any]], dtype: str) -> npt.NDArray[Any]:
    return np.concatenate([array.reshape(-1) for array in arrays]).astype(dtype, copy=False)


def _known(
    arrays: Sequence[npt.NDArray[Any] | None],
    sizes: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64] | None = None,
) -> pa.Array:
    """Return what some requests tell and others do not, null where it is unknown.

    Parameters:
        sizes: of shape (requests,): how many there are of each request.
        rows: position of what each row gets; without it, each gets its own.
    """
    import pyarrow as pa

    if all(array is None for array in arrays):
        return pa.nulls(int(sizes.sum()) if rows is None else len(rows))
    parts = [np.full(size, np.nan) if array is None else array for array, size in zip(arrays, sizes, strict=True)]
    joined = _joined(parts, "float64")
    numbers = joined if rows is None else joined[rows]
    return pa.array(numbers, mask=np.isnan(numbers))


def _texts(lists: Sequence[Sequence[str | None]]) -> pa.StringArray:
    import pyarrow as pa

    return pa.array([text for texts in lists for text in texts], pa.string())
