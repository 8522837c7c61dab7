"""Local time in requests and answers: rows whose times tell no zone, and answers in the clocks that a client asks for.

Times are UTC unless the dataset of a model has a zone, or the request names one. Not here: what a time means where
clocks change, which calendars say.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.requests import Request

from mlplatform.calendars import LOCAL, CalendarError, Zone, ns_of, times_of, zone_of
from mlplatform.config import ENTITY, TIMESTAMP
from mlplatform.data import localise
from mlplatform.registry import Contract
from serving.errors import ErrorDetail, invalid, shown

PARAMETER = "timezone"
# Keys of an answer's entries that hold times.
TIMES = ("event_time", "window_end", "timestamps")


def asked_zone(request: Request, contract: Contract) -> Zone | None:
    """Return the zone that a request wants its answer in; `None` for UTC, as answers are by themselves.

    Raises:
        ServingError: 422 if there is no such zone.
    """
    name = request.query_params.get(PARAMETER) if request.scope.get("query_string") else None
    if name is None:
        return None
    try:
        if name != LOCAL:
            return zone_of(name)
        return contract.calendar.zone if contract.task == "forecast" else None
    except CalendarError as error:
        expected = f"{LOCAL}, for the zone of the model's dataset, or an IANA name such as Europe/Berlin"
        detail = ErrorDetail(field=PARAMETER, found=shown(name), expected=expected, action="name another zone")
        raise invalid("invalid_timezone", [detail]) from error


def in_zone(content: dict[str, Any], zone: Zone | None) -> dict[str, Any]:
    """Return an answer with its times as clocks of a zone show them, with their offset; `None` leaves them in UTC."""
    if zone is None:
        return content
    for kind in ("forecasts", "predictions"):
        for entry in content.get(kind, ()):
            entry.update({key: _shown(entry[key], zone) for key in TIMES if entry.get(key) is not None})
    return content


def _shown(times: npt.NDArray[np.datetime64] | np.datetime64, zone: Zone) -> Any:
    moments = ns_of(np.atleast_1d(np.asarray(times)))
    walls = zone.wall(moments)
    offsets = ((walls - moments) // 1_000_000_000).tolist()
    local: list[dt.datetime] = times_of(walls).astype("datetime64[us]").tolist()
    found = [
        wall.replace(tzinfo=dt.timezone(dt.timedelta(seconds=offset)))
        for wall, offset in zip(local, offsets, strict=True)
    ]
    return found if np.ndim(times) else found[0]


def rows_in_utc(rows: Sequence[dict[str, Any]], contract: Contract) -> Sequence[dict[str, Any]]:
    """Return rows whose times without a zone, which are in that of the model's dataset, tell that they are UTC.

    What is no time stays as it is, to be found by who checks rows.
    """
    if not contract.calendar_text or contract.calendar.zone.is_utc:
        return rows
    naive = [(number, moment) for number, row in enumerate(rows) if (moment := _naive(row.get(TIMESTAMP))) is not None]
    if not naive:
        return rows
    wall = ns_of(np.array([moment for _, moment in naive], dtype="datetime64[us]"))
    owners = np.array([str(rows[number].get(ENTITY)) for number, _ in naive], dtype=object)
    found = times_of(localise(wall, owners, contract.calendar.zone).moments).astype("datetime64[us]").tolist()
    told = {number: f"{moment.isoformat()}Z" for (number, _), moment in zip(naive, found, strict=True)}
    return [{**row, TIMESTAMP: told[number]} if number in told else row for number, row in enumerate(rows)]


def _naive(value: Any) -> dt.datetime | None:
    """Return a time in text that tells no zone; `None` for anything else."""
    if type(value) is not str:
        return None
    try:
        moment = dt.datetime.fromisoformat(value)
    except ValueError:
        return None
    is_near = 1700 <= moment.year <= 2200
    return moment if moment.tzinfo is None and is_near else None
