"""Raw rows of a request, checked and turned into a panel.

The server accepts only what the pair can read: every column, with the right type, finite or a null that the pair itself
fills or reads, and for forecasts an unbroken stretch of the time grid per entity. Everything else is refused with a
finding that names row and column; guessing (sorting out duplicates, dropping a column) would answer a question that was
not asked.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.calendars import Calendar, ns_of, times_of
from mlplatform.config import ENTITY, TIMESTAMP, StalenessConfig
from mlplatform.datamodule import Int64, Panel
from mlplatform.features import NOW
from mlplatform.features.retrieval import FeaturePanel, judge
from mlplatform.registry import Contract, rows_or_missing, unknown_ahead, with_ahead
from serving.errors import MAX_DETAILS, ErrorDetail, ServingError, invalid, reworded, shown
from serving.local_time import rows_in_utc
from serving.names import FUTURE, ROWS
from serving.rules import RowRules

Rows = Sequence[dict[str, Any]]
Types = Mapping[str, str]

FLOAT32_MAX = float(np.finfo(np.float32).max)
# datetime64[ns] ends in 2262; a margin keeps the forecast moments inside.
YEARS = (1700, 2200)
EPOCH, MICROSECOND = dt.datetime(1970, 1, 1), dt.timedelta(microseconds=1)
# Characters of a time that is kept: what a client sends is bounded by nothing but the body.
LONGEST_KEPT_TIME = 48
INT64 = range(-(2**63), 2**63)
STRICT = RowRules()


def panel_from_rows(rows: Rows, contract: Contract, types: Types, rules: RowRules = STRICT) -> FeaturePanel:
    """Return the rows as a panel: for a forecast the last lookback + context rows per entity, else one row per entity.

    Entities keep the order in which the request first names them. No row is too old: who sends rows wants an answer for
    them, and the experiment's staleness policy is about what the feature store holds.

    Parameters:
        contract: says which columns the model reads and how many rows it needs.
        types: `float` or `category` per column, as the pair's preprocessor knows them.
        rules: what rows may hold beyond that, and what clients may call entity and time.

    Raises:
        ServingError: 422 with one detail per finding.
    """
    with rules.names.read(rows, ROWS) as canonical:
        return _panel(rows_in_utc(canonical, contract), contract, types, rules)


def _panel(rows: Rows, contract: Contract, types: Types, rules: RowRules) -> FeaturePanel:
    if contract.task != "forecast":
        return judge(_tabular_panel(rows, contract, types, rules), NOW, contract.dataset, StalenessConfig())
    if not contract.known:
        return judge(_forecast_panel(rows, contract, types, rules), NOW, contract.dataset, StalenessConfig())
    future = _future_rows(rows, contract)
    numbers = [number for number in range(len(rows)) if number not in future]
    try:
        past = _forecast_panel([rows[number] for number in numbers], contract, types, rules)
    except ServingError as error:
        raise reworded(error, [_renumbered(detail, numbers) for detail in error.details]) from error
    return with_future(judge(past, NOW, contract.dataset, StalenessConfig()), future, contract, types, rules)


def _renumbered(detail: ErrorDetail, numbers: Sequence[int]) -> ErrorDetail:
    """Return a finding about a row of the past with the number that the row has in the request."""
    if detail.row is None:
        return detail
    row = numbers[detail.row]
    return detail.model_copy(update={"row": row, "field": f"rows[{row}].{detail.column}"})


def with_future_of_request(
    panel: FeaturePanel, future: Rows, contract: Contract, types: Types, rules: RowRules = STRICT
) -> FeaturePanel:
    """Return a panel from the feature store with what the request says about the future, or else the store itself.

    Raises:
        ServingError: 422 if it says less than the model reads, or something although the model reads nothing of it.
    """
    if contract.known and not future and panel.known_ahead:
        return _with_stored_future(panel, contract)
    if contract.known:
        with rules.names.read(future, FUTURE) as rows:
            return with_future(panel, dict(enumerate(rows_in_utc(rows, contract))), contract, types, rules)
    if future:
        found, action = f"{len(future)} rows", "leave the field out"
        expected = "nothing: the model reads the past only"
        raise invalid("invalid_rows", [ErrorDetail(field=FUTURE, found=found, expected=expected, action=action)])
    return panel


def with_future(
    panel: FeaturePanel, rows: Mapping[int, dict[str, Any]], contract: Contract, types: Types, rules: RowRules
) -> FeaturePanel:
    """Return the panel with the known future of every entity appended to its past.

    Parameters:
        panel: the past, the same number of rows for every entity.
        rows: future rows by their number in the request, one per entity and step of the horizon.

    Raises:
        ServingError: 422 with one detail per finding.
    """
    numbers, values = list(rows), list(rows.values())
    _refuse(chain(_entity_findings(values, numbers), _time_findings(values, numbers)))
    _refuse(chain(_known_findings(rows, contract, types), _policy_findings(values, contract.known, rules, numbers)))
    entities = panel.entity_ids.tolist()
    places = {entity: position for position, entity in enumerate(entities)}
    last = ns_of(panel.timestamps[panel.offsets[1:] - 1])
    found: dict[tuple[int, int], dict[str, Any]] = {}
    findings = []
    moments = _times(values)
    owners = np.array([places.get(row[ENTITY], -1) for row in values], dtype=np.int64)
    steps_ahead, is_on = contract.calendar.between(last[owners], ns_of(moments))
    for position, (number, row) in enumerate(rows.items()):
        place, ahead, moment = int(owners[position]), int(steps_ahead[position]), moments[position]
        is_wanted = place >= 0 and bool(is_on[position]) and 1 <= ahead <= contract.horizon
        if not is_wanted or (place, ahead) in found:
            expected = f"each of the {contract.horizon} steps after the entity's last row of the past, once"
            shown_moment = f"{np.datetime_as_string(moment, unit='s')}Z for entity {shown(row[ENTITY])}"
            findings.append(_finding(number, TIMESTAMP, shown_moment, expected, "send the future of what is asked for"))
        else:
            found[place, ahead] = row
    _refuse(findings)
    steps = range(1, contract.horizon + 1)
    _refuse_unknown(
        entities, contract, ((p, ahead) for p in range(len(entities)) for ahead in steps if (p, ahead) not in found)
    )
    ordered = [found[place, ahead] for place in range(len(entities)) for ahead in steps]
    after = {
        name: np.array([row[name] for row in ordered], dtype=object if types[name] == "category" else np.float32)
        for name in contract.known
    }
    return with_ahead(panel, after, contract)


def _with_stored_future(panel: FeaturePanel, contract: Contract) -> FeaturePanel:
    """Return the panel with what the feature store knows beforehand appended to the past of every entity.

    Raises:
        ServingError: 422 naming the entities and steps that it does not know all columns of.
    """
    places = ((int(place), int(step) + 1) for place, step in np.argwhere(unknown_ahead(panel)))
    _refuse_unknown(panel.entity_ids.tolist(), contract, places)
    return with_ahead(panel, panel.known_ahead, contract)


def _refuse_unknown(entities: Sequence[Any], contract: Contract, missing: Iterable[tuple[int, int]]) -> None:
    """Refuse to answer for entities, given by their place, of which steps of the horizon are not known."""
    _refuse(
        ErrorDetail(
            field=FUTURE,
            found=f"no values of {', '.join(contract.known)} for entity {shown(entities[place])}, step {ahead}",
            expected=f"one row per step of the horizon, 1 to {contract.horizon}",
            action="send them: the model was trained to know them beforehand",
        )
        for place, ahead in missing
    )


def _future_rows(rows: Rows, contract: Contract) -> dict[int, dict[str, Any]]:
    """Return the rows of the future by their number: those in which only known columns have values.

    A row without such values between others that have some is a gap in the past.
    """
    unknown = [name for name in contract.columns if name not in contract.known]
    found = {number: row for number, row in enumerate(rows) if all(row.get(name) is None for name in unknown)}
    last: dict[Any, dt.datetime] = {}
    for number, row in enumerate(rows):
        moment = utc_moment(row.get(TIMESTAMP))
        if number not in found and moment is not None:
            entity = str(row.get(ENTITY))
            last[entity] = max(moment, last.get(entity, moment))
    return {number: row for number, row in found.items() if not _is_before(row, last.get(str(row.get(ENTITY))))}


def _is_before(row: Mapping[str, Any], moment: dt.datetime | None) -> bool:
    own = utc_moment(row.get(TIMESTAMP))
    return own is not None and moment is not None and own < moment


def _known_findings(rows: Mapping[int, dict[str, Any]], contract: Contract, types: Types) -> Iterator[ErrorDetail]:
    allowed = {ENTITY, TIMESTAMP, *contract.columns}
    for number, row in rows.items():
        for name in row:
            if name not in allowed:
                expected = f"one of {', '.join((ENTITY, TIMESTAMP, *contract.known))}"
                yield _finding(number, name, "a column that the model does not read", expected, "leave it out")
        for name in contract.known:
            value = row.get(name)
            if types[name] == "category" and type(value) is not str:
                yield _finding(number, name, shown(value), "text", "send the category as it stands in the data")
            elif types[name] != "category" and not _all_finite([value]):
                yield _finding(number, name, shown(value), "a finite number", "send what is known of the future")


def _forecast_panel(rows: Rows, contract: Contract, types: Types, rules: RowRules) -> Panel:
    needed = contract.input_rows
    _refuse(_key_findings(rows, required=(ENTITY, TIMESTAMP, *contract.columns), optional=()))
    _refuse(chain(_entity_findings(rows), _time_findings(rows), _value_findings(rows, contract, types, rules)))
    _refuse(_policy_findings(rows, contract.columns, rules))
    codes, entity_ids = _entities(rows)
    times = _times(rows)
    order = np.lexsort((times, codes))
    _refuse(_grid_findings(times, codes, entity_ids, order, contract.calendar))
    if rules.fallback.short not in ("model", "naive"):
        _refuse(_length_findings(codes, entity_ids, contract))
    ends = np.cumsum(np.bincount(codes))
    starts = np.concatenate([[0], ends[:-1]])
    places = ends[:, None] - needed + np.arange(needed)[None, :]
    # Before the first row of a short series are rows without values, as in the feature store.
    chosen = np.where(places >= starts[:, None], order[np.maximum(places, 0)], -1).reshape(-1)
    moments = contract.calendar.window(ns_of(times[order[ends - 1]]), needed)
    return Panel(
        columns={name: rows_or_missing(values, chosen) for name, values in _columns(rows, contract, types).items()},
        timestamps=times_of(moments).reshape(-1),
        entity_ids=entity_ids,
        offsets=np.arange(len(entity_ids) + 1, dtype=np.int64) * needed,
    )


def _tabular_panel(rows: Rows, contract: Contract, types: Types, rules: RowRules) -> Panel:
    _refuse(_key_findings(rows, required=contract.columns, optional=(ENTITY, TIMESTAMP)))
    with_entity, with_time = (any(name in row for row in rows) for name in (ENTITY, TIMESTAMP))
    _refuse(
        chain(
            _entity_findings(rows) if with_entity else (),
            _time_findings(rows) if with_time else (),
            _value_findings(rows, contract, types, rules),
        )
    )
    _refuse(_policy_findings(rows, contract.columns, rules))
    entity_ids: npt.NDArray[np.generic] = np.arange(len(rows))
    if with_entity:
        codes, known = _entities(rows)
        entity_ids = known[codes]
    times = _times(rows) if with_time else np.full(len(rows), np.datetime64("NaT", "ns"))
    return Panel(_columns(rows, contract, types), times, entity_ids, np.arange(len(rows) + 1, dtype=np.int64))


def _key_findings(rows: Rows, required: Sequence[str], optional: Sequence[str]) -> Iterator[ErrorDetail]:
    wanted, allowed = set(required), {*required, *optional}
    for number, row in enumerate(rows):
        if row.keys() == wanted:
            continue
        for name in required:
            if name not in row:
                yield _finding(number, name, "no such column", "a value", "send every column in every row")
        for name in row:
            if name not in allowed:
                expected = f"one of {', '.join((*required, *optional))}"
                yield _finding(number, name, "a column that the model does not read", expected, "leave it out")


def _value_findings(rows: Rows, contract: Contract, types: Types, rules: RowRules) -> Iterator[ErrorDetail]:
    for name in contract.columns:
        allows_null = rules.allows_null(name)
        or_null = " or null" if allows_null else ""
        values = [row[name] for row in rows]
        if types[name] == "category":
            for number, value in enumerate(values):
                if type(value) is not str and not (allows_null and value is None):
                    action = "send the category as it stands in the data"
                    yield _finding(number, name, shown(value), f"text{or_null}", action)
        elif not _all_finite(values, allows_null):
            for number, value in enumerate(values):
                if not _all_finite([value], allows_null):
                    action = "fill the gap or send other rows"
                    yield _finding(number, name, shown(value), f"a finite number{or_null}", action)


def _policy_findings(
    rows: Rows, columns: Sequence[str], rules: RowRules, numbers: Sequence[int] | None = None
) -> Iterator[ErrorDetail]:
    """Find what the pair's preprocessing has no number for, and what it reads but the experiment's policy refuses."""
    places = numbers or range(len(rows))
    for name in columns:
        if name in rules.floors:
            floor = rules.floors[name]
            for number, row in zip(places, rows, strict=True):
                if row[name] is not None and np.float32(row[name]) <= np.float32(floor):
                    expected = f"a number above {floor:g}, below which the pair's preprocessing has none"
                    yield _finding(number, name, shown(row[name]), expected, "correct the value or send other rows")
        if name in rules.limits and rules.policy.out_of_range == "refuse":
            low, high = rules.limits[name]
            for number, row in zip(places, rows, strict=True):
                if row[name] is not None and not low <= row[name] <= high:
                    ends = [f"at least {low:g}"] * (low > -np.inf) + [f"at most {high:g}"] * (high < np.inf)
                    expected = f"{' and '.join(ends)}, as the dataset says"
                    yield _finding(number, name, shown(row[name]), expected, "correct the value or leave the row out")
        if name in rules.categories and rules.policy.unseen_category == "refuse":
            known = rules.categories[name]
            for number, row in zip(places, rows, strict=True):
                if row[name] is not None and row[name] not in known:
                    expected = f"a category of the training rows: {', '.join(sorted(known)[:MAX_DETAILS])}"
                    yield _finding(number, name, shown(row[name]), expected, "send a known category")


def _all_finite(values: list[Any], allows_null: bool = False) -> bool:
    """Return whether all values are JSON numbers that float32 can hold; nulls count as such where they are allowed."""
    if allows_null:
        values = [value for value in values if value is not None]
        if not values:
            return True
    return set(map(type, values)) <= {float, int} and bool((np.abs(np.array(values, np.float64)) <= FLOAT32_MAX).all())


def _columns(rows: Rows, contract: Contract, types: Types) -> dict[str, npt.NDArray[np.generic]]:
    columns: dict[str, npt.NDArray[np.generic]] = {}
    for name in contract.columns:
        values = [row[name] for row in rows]
        # As float64 first, None becomes NaN.
        is_category = types[name] == "category"
        columns[name] = np.array(values, object) if is_category else np.array(values, np.float64).astype(np.float32)
    return columns


def _entity_findings(rows: Rows, numbers: Sequence[int] | None = None) -> Iterator[ErrorDetail]:
    first = type(rows[0].get(ENTITY)) if rows else int
    places = numbers or range(len(rows))
    where = f"as in row {places[0]}" if rows else ""
    expected = {int: f"a whole number, {where}", str: f"text, {where}"}.get(first, "a whole number or text")
    for number, row in zip(places, rows, strict=True):
        value = row.get(ENTITY)
        fits = type(value) is first and (first is str or (first is int and value in INT64))
        if not fits:
            yield _finding(number, ENTITY, shown(value), expected, "send the id of the row's entity")


def _entities(rows: Rows) -> tuple[Int64, npt.NDArray[np.generic]]:
    """Return the position of each row's entity, and the entities in order of appearance."""
    values = [row[ENTITY] for row in rows]
    # Not by pandas, to which texts are equal that differ after a NUL character.
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    codes = np.array([places[value] for value in values], dtype=np.int64)
    return codes, np.array(list(places), dtype=np.int64 if type(values[0]) is int else object)


def _time_findings(rows: Rows, numbers: Sequence[int] | None = None) -> Iterator[ErrorDetail]:
    expected = "an ISO 8601 time such as 2026-03-01T00:00:00Z"
    for number, row in zip(numbers or range(len(rows)), rows, strict=True):
        value = row.get(TIMESTAMP)
        if utc_moment(value) is None:
            yield _finding(number, TIMESTAMP, shown(value), expected, "write the time this way")


def _times(rows: Rows) -> npt.NDArray[np.datetime64]:
    """Return the times of rows in which there is nothing to find."""
    found = (_read_time(row[TIMESTAMP]) for row in rows)
    microseconds = np.array([time[1] for time in found if time is not None], dtype=np.int64)
    return microseconds.astype("datetime64[us]").astype("datetime64[ns]")


def utc_moment(value: Any) -> dt.datetime | None:
    """Return an ISO 8601 time as naive UTC; a time without a zone is taken as UTC."""
    found = _read_time(value)
    return None if found is None else found[0]


def _read_time(value: Any) -> tuple[dt.datetime, int] | None:
    """Return a time as `utc_moment` does, and in microseconds since 1970."""
    if type(value) is not str:
        return None
    return _known_time(value) if len(value) <= LONGEST_KEPT_TIME else _parsed_time(value)


def _parsed_time(value: str) -> tuple[dt.datetime, int] | None:
    try:
        moment = dt.datetime.fromisoformat(value)
        moment = moment if moment.tzinfo is None else moment.astimezone(dt.UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
    return (moment, (moment - EPOCH) // MICROSECOND) if YEARS[0] <= moment.year <= YEARS[1] else None


# A request's times are read twice, and the windows of a series and its neighbours share most of theirs.
_known_time = lru_cache(8_192)(_parsed_time)


def _grid_findings(
    times: npt.NDArray[np.datetime64],
    codes: Int64,
    entity_ids: npt.NDArray[np.generic],
    order: Int64,
    calendar: Calendar,
) -> Iterator[ErrorDetail]:
    """Find two rows of one entity and time, and neighbours that are not exactly one step apart."""
    moments = ns_of(times[order])
    gaps, is_on = calendar.between(moments[:-1], moments[1:])
    wrong = (np.diff(codes[order]) == 0) & ~((gaps == 1) & is_on)
    for position in np.flatnonzero(wrong):
        before, after = int(order[position]), int(order[position + 1])
        here, previous = (f"{np.datetime_as_string(times[row], unit='s')}Z" for row in (after, before))
        entity = shown(entity_ids.tolist()[codes[after]])
        if moments[position] == moments[position + 1]:
            found, action = f"{here} twice for entity {entity} (also in row {before})", "send every time once"
        else:
            found = f"{here} next after {previous} (row {before}) for entity {entity}"
            action = "send every step of the time grid"
        yield _finding(after, TIMESTAMP, found, f"a time step of {calendar.length}", action)


def _length_findings(codes: Int64, entity_ids: npt.NDArray[np.generic], contract: Contract) -> Iterator[ErrorDetail]:
    needed = contract.input_rows
    counts = np.bincount(codes)
    for code in np.flatnonzero(counts < needed):
        yield ErrorDetail(
            field="rows",
            found=f"{counts[code]} rows for entity {shown(entity_ids.tolist()[code])}",
            expected=f"at least {needed} (lookback {contract.lookback} + preprocessing context {contract.context})",
            action="send a longer history",
        )


def _finding(row: int, column: str, found: str, expected: str, action: str) -> ErrorDetail:
    field = f"rows[{row}].{column}"
    return ErrorDetail(field=field, row=row, column=column, found=found, expected=expected, action=action)


def _refuse(findings: Iterable[ErrorDetail]) -> None:
    # A hostile body can hold a finding per byte; nobody reads more than the first ones.
    details = list(islice(findings, MAX_DETAILS + 1))
    if details:
        raise invalid("invalid_rows", details)
