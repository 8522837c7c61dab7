"""KServe's time series forecast protocol: `POST /v1/timeseries/forecast`.

Specification: https://kserve.github.io/website/docs/reference/time_series/api. A request brings whole series; they are
answered as raw rows are, by the entity that the series is named after.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request, Response
from pydantic import Field, StrictBool

from mlplatform.calendars import Calendar, CalendarError, make_calendar, ns_of, times_of
from mlplatform.config import ENTITY, TIMESTAMP, bound_levels
from mlplatform.registry import Contract
from serving.answers import to_json
from serving.backend import Prediction, Served
from serving.bodies import JSON
from serving.errors import ErrorDetail, ServingError, invalid, shown
from serving.examples import example_rows
from serving.local_time import rows_in_utc
from serving.protocols.failures import route_writing_errors
from serving.protocols.forms import described_body
from serving.schemas import MAX_ENTITIES, StrictRequest
from serving.sent_values import utc_moment
from serving.service import Missing, PredictionService

TAG = "KServe time series"

UNIVARIATE, MULTIVARIATE = "univariate_time_series", "multivariate_time_series"
# The protocol's words for steps of one unit; months, quarters and years are told by their first day or their last.
UNITS = {
    "s": ("S", "second"),
    "min": ("T", "minute"),
    "h": ("H", "hour"),
    "D": ("D", "day"),
    "W": ("W", "week"),
    "MS": ("M", "month"),
    "ME": ("M", "month"),
    "QS": ("Q", "quarter"),
    "QE": ("Q", "quarter"),
    "YS": ("Y", "year"),
    "YE": ("Y", "year"),
}

# Moments of a request beyond which laying them out as rows takes longer than handing that to a thread.
SMALL = 1_024


class Extensible(StrictRequest, extra="ignore"):
    """Base of what the protocol lets clients extend."""


class SeriesInput(Extensible):
    """One series."""

    type: Literal["univariate_time_series", "multivariate_time_series"]
    name: str = Field(min_length=1, max_length=256, description="Of the entity.")
    series: list[Any] = Field(min_length=1, description="Values, or per moment those of all of the model's columns.")
    frequency: str = Field(description="S, T, H, D, W, M, Q, Y, or the dataset's own word, such as 15min.")
    start_timestamp: str | None = Field(default=None, description="Time of the first value; needed here.")


class Options(Extensible):
    """What to forecast."""

    horizon: int = Field(ge=1)
    quantiles: list[float] | None = None
    explain: StrictBool = Field(default=False, description="Beyond the protocol: whether forecasts are explained.")


class ForecastRequest(Extensible):
    """The request."""

    model: str
    inputs: list[SeriesInput] = Field(min_length=1)
    options: Options


def routes(service: PredictionService) -> APIRouter:
    """Return the protocol's routes."""
    router = APIRouter(tags=[TAG], route_class=route_writing_errors(_error))

    @router.get("/v1/timeseries/models")
    async def models() -> Response:
        """List the models that forecast."""
        served = {name: model.backend.served() for name, model in service.models.items()}
        names = [name for name, now in served.items() if now is not None and now.pair.contract.task == "forecast"]
        return Response(to_json(names), media_type=JSON)

    @router.post("/v1/timeseries/forecast", openapi_extra=described_body(ForecastRequest))
    async def forecast(request: Request) -> Response:
        """Forecast series: every one is named after its entity and answered like its raw rows."""
        asked = await service.read(request, ForecastRequest)
        model = service.model(asked.model)
        served = model.backend.served()
        if served is None:
            raise ServingError(503, "no_production_pair", f"model {model.name} has no pair in production")
        is_small = sum(len(series.series) for series in asked.inputs) <= SMALL
        rows = _rows(asked, served) if is_small else await service.reader.stage.run(_rows, asked, served)
        prediction, missing = await service.from_rows(request, model, rows, explain=asked.options.explain)
        writer = Writer(asked, request.state.request_id, {str(each.entity): each for each in missing})
        return Response(await service.written(request, model, prediction, writer), media_type=JSON)

    return router


def _error(status: int, error: ServingError) -> dict[str, Any]:
    field = error.details[0].field if error.details else ""
    return {"error": {"code": str(status), "message": error.message, "param": field, "type": error.code}}


def _told_of(missing: Missing) -> dict[str, Any]:
    return {"code": None, "message": missing.message, "param": str(missing.entity), "type": missing.code}


def _rows(asked: ForecastRequest, served: Served) -> list[dict[str, Any]]:
    """Return the rows that the series of a request are.

    Raises:
        ServingError: 422 that names what does not fit the model; 413 for too many series.
    """
    contract = served.pair.contract
    if contract.task != "forecast":
        raise _refused("model", asked.model, "a model that forecasts", "see /v1/timeseries/models")
    if asked.options.horizon > contract.horizon:
        limit = f"at most {contract.horizon}, the horizon of {asked.model}"
        raise _refused("options.horizon", str(asked.options.horizon), limit, "ask for fewer steps")
    if len(asked.inputs) > MAX_ENTITIES:
        message = f"the request has {len(asked.inputs)} series, but at most {MAX_ENTITIES} are allowed; split it"
        raise ServingError(413, "too_many_entities", message)
    names = [series.name for series in asked.inputs]
    rows: list[dict[str, Any]] = []
    for number, series in enumerate(asked.inputs):
        if names.index(series.name) != number:
            raise _refused(f"inputs[{number}].name", f"{shown(series.name)} twice", "every name once", "rename one")
        rows += _rows_of(series, f"inputs[{number}]", contract)
    return rows


def _rows_of(series: SeriesInput, field: str, contract: Contract) -> list[dict[str, Any]]:
    calendar = contract.calendar
    if not _is_step(series.frequency, calendar):
        expected = f"the model's step, {calendar.length}"
        raise _refused(f"{field}.frequency", shown(series.frequency), expected, "send the series at that step")
    (start,) = rows_in_utc([{TIMESTAMP: series.start_timestamp}], contract)
    began = utc_moment(start[TIMESTAMP])
    if began is None:
        expected = "the time of the first value, such as 2026-03-01T00:00:00Z"
        raise _refused(f"{field}.start_timestamp", shown(series.start_timestamp), expected, "add it")
    columns = contract.columns
    moments = _moments(series, field, columns)
    try:
        times = [f"{moment.isoformat()}Z" for moment in _times(began, len(moments), calendar)]
    except OverflowError as error:
        raise _refused(f"{field}.start_timestamp", shown(series.start_timestamp), "an earlier one", "fix it") from error
    return [
        {ENTITY: series.name, TIMESTAMP: moment, **dict(zip(columns, values, strict=True))}
        for moment, values in zip(times, moments, strict=True)
    ]


def _times(began: dt.datetime, count: int, calendar: Calendar) -> list[dt.datetime]:
    """Return the times of a series.

    Raises:
        OverflowError: if they reach further than nanoseconds do.
    """
    first = ns_of(np.array([began], dtype="datetime64[us]"))
    if int(first[0]) + count * calendar.nominal_ns > np.iinfo(np.int64).max:
        raise OverflowError
    times: list[dt.datetime] = times_of(calendar.shift(first, np.arange(count))).astype("datetime64[us]").tolist()
    return times


def _moments(series: SeriesInput, field: str, columns: Sequence[str]) -> list[list[Any]]:
    """Return the values of every moment, in the order of the model's columns."""
    if series.type == UNIVARIATE:
        if len(columns) != 1:
            expected = f"{MULTIVARIATE} with the columns {', '.join(columns)}, in this order"
            raise _refused(f"{field}.type", UNIVARIATE, expected, "send a list of these values per moment")
        return [[value] for value in series.series]
    for number, values in enumerate(series.series):
        if type(values) is not list or len(values) != len(columns):
            expected = f"a list of {len(columns)} values: {', '.join(columns)}"
            raise _refused(f"{field}.series[{number}]", shown(values), expected, "send all of them")
    return series.series


def _is_step(frequency: str, calendar: Calendar) -> bool:
    """Return whether a frequency names the steps of a calendar, in the protocol's words or as datasets have it."""
    for unit, words in UNITS.items():
        if frequency in words and _means(unit, calendar):
            return True
    return _means(frequency, calendar)


def _means(frequency: str, calendar: Calendar) -> bool:
    if frequency == calendar.frequency:
        return True
    try:
        other = make_calendar(frequency, calendar.zone.name)
    except (CalendarError, OverflowError):
        return False
    return other.name == calendar.name or (
        other.is_even and calendar.is_even and other.nominal_ns == calendar.nominal_ns
    )


def _levels(asked: Sequence[float], coverages: Sequence[float]) -> Mapping[str, int]:
    """Return which of the answer's arrays answers each quantile, by its text.

    Nothing is interpolated between the bounds that a model has: what lies between was not calibrated.

    Raises:
        ServingError: 422 that names the quantiles that the model has.
    """
    found = {}
    bounds = [level for coverage in coverages for level in bound_levels(coverage)]
    known = {level: place for place, level in enumerate((0.5, *bounds))} if bounds else {}
    for level in asked:
        if round(level, 6) not in known:
            has = ", ".join(f"{level:g}" for level in sorted(known))
            expected = f"some of {has}, the bounds of its intervals and the point forecast" if has else "none"
            action = "ask for these" if has else "leave them out: the model was not calibrated and has no quantiles"
            raise _refused("options.quantiles", f"{level:g}", expected, action)
        found[f"{level:g}"] = known[round(level, 6)]
    return found


def _refused(field: str, found: str, expected: str, action: str) -> ServingError:
    return invalid("invalid_request", [ErrorDetail(field=field, found=found, expected=expected, action=action)])


@dataclass(frozen=True)
class Writer:
    """Writes the answer to one request.

    Attributes:
        missing: the series without a forecast, by name.
    """

    asked: ForecastRequest
    request_id: str
    missing: Mapping[str, Missing] = field(default_factory=dict)

    def __call__(self, prediction: Prediction) -> bytes:
        """Return the body of the answer.

        Raises:
            ServingError: 422 if quantiles are asked for that the model does not have.
        """
        levels = _levels(self.asked.options.quantiles or (), prediction.answers.coverages)
        places = {entity: place for place, entity in enumerate(prediction.entity_ids.tolist())}
        outputs = []
        for number, series in enumerate(self.asked.inputs):
            missing = self.missing.get(series.name)
            output: dict[str, Any] = {
                "type": "time_series_forecast",
                "id": f"ts_{self.request_id}_{number}",
                "status": "completed",
                "content": [],
                "error": None,
            }
            if missing is None:
                output["content"] = [self._content(prediction, places[series.name], series, levels)]
            else:
                output |= {"status": "error", "error": _told_of(missing)}
            outputs.append(output)
        return to_json(
            {
                "id": f"resp_{self.request_id}",
                "created_at": int(time.time()),
                "status": "partial" if self.missing else "completed",
                "error": None,
                "model": self.asked.model,
                "outputs": outputs,
            }
        )

    def _content(
        self, prediction: Prediction, place: int, series: SeriesInput, levels: Mapping[str, int]
    ) -> dict[str, Any]:
        targets = prediction.pair.contract.targets
        content: dict[str, Any] = {
            "type": UNIVARIATE if len(targets) == 1 else MULTIVARIATE,
            "name": series.name,
            "mean_forecast": self._values(prediction.outputs, place),
            "frequency": series.frequency,
            "start_timestamp": prediction.times_ahead[place, 0],
            "targets": targets,
            **prediction.told_by[place]._asdict(),
            "fallback": prediction.fallback_reasons[place] is not None,
            "fallback_reason": prediction.fallback_reasons[place],
        }
        if prediction.explanations:
            content["explanation"] = prediction.explanations[place]
        # What stands in for a forecast has no bounds.
        if levels and not prediction.is_fallback[place]:
            arrays = prediction.answers.arrays
            content["quantiles"] = {level: self._values(arrays[number], place) for level, number in levels.items()}
        return content

    def _values(self, values: npt.NDArray[np.float32], place: int) -> npt.NDArray[np.float32]:
        steps = values[place, : self.asked.options.horizon]
        return np.ascontiguousarray(steps[:, 0] if steps.shape[1] == 1 else steps)


def _word(contract: Contract) -> str:
    """Return the protocol's word for the steps of a model, or the dataset's where it has none."""
    words = (known[0] for unit, known in UNITS.items() if _means(unit, contract.calendar))
    return next(words, contract.calendar.frequency)


def example(name: str, served: Served) -> dict[str, Any] | None:
    """Return a request that the served pair answers; `None` if it forecasts nothing."""
    contract, rows = served.pair.contract, example_rows(served)
    if contract.task != "forecast" or not rows:
        return None
    series: list[Any] = [[row[column] for column in contract.columns] for row in rows]
    is_one = len(contract.columns) == 1
    return {
        "model": name,
        "inputs": [
            {
                "type": UNIVARIATE if is_one else MULTIVARIATE,
                "name": str(rows[0][ENTITY]),
                "series": [values[0] for values in series] if is_one else series,
                "frequency": _word(contract),
                "start_timestamp": rows[0][TIMESTAMP],
            }
        ],
        "options": {"horizon": contract.horizon},
    }
