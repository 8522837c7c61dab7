"""Raw rows of a request, checked and turned into a panel.

The server accepts only what the pair can read: every column, with the right type, finite or a null that the pair itself
fills or reads, and for forecasts an unbroken stretch of the time grid per entity. Everything else is refused with a
finding that names row and column; guessing (sorting out duplicates, dropping a column) would answer a question that was
not asked.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from serving.sent_values import INT64, Float64, Values, are_ids, by_column, moments, numbers, utc_moment

Rows = Sequence[dict[str, Any]]
Types = Mapping[str, str]

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


def is_shareable(requests: Sequence[Rows], contract: Contract, rules: RowRules) -> bool:
    """Return whether the rows of several requests to one pair may be read as one, by `panels_from_rows`.

    Rows of tables may as long as they are nothing but their values; those of forecasts unless some lie ahead, or their
    times have to be put from local clocks into UTC, which looks at neighbours.
    """
    if not all(requests):
        return False
    if contract.task == "forecast":
        return not contract.ahead and (not contract.calendar_text or contract.calendar.zone.is_utc)
    keys = {ENTITY, TIMESTAMP, rules.names.entity, rules.names.time} - {None}
    return not any(keys & row.keys() for rows in requests for row in rows)


def panels_from_rows(
    requests: Sequence[Rows], contract: Contract, types: Types, rules: RowRules
) -> tuple[FeaturePanel, list[int]]:
    """Return the rows of requests as one panel, request after request, and how many entities of it each has.

    Every request has the rows that it would have alone, and the same entity may stand in several.

    Parameters:
        requests: which `is_shareable`.

    Raises:
        ServingError: 422 if there is something wrong with one of them; what, `panel_from_rows` of each says.
    """
    rows, lengths = [row for request in requests for row in request], [len(request) for request in requests]
    with rules.names.read(rows, ROWS) as canonical:
        if contract.task == "forecast":
            panel, counts = _forecast_panels(canonical, lengths, contract, types, rules)
        else:
            panel, counts = _tabular_panel(canonical, contract, types, rules), lengths
    return judge(panel, NOW, contract.dataset, StalenessConfig()), counts


def _panel(rows: Rows, contract: Contract, types: Types, rules: RowRules) -> FeaturePanel:
    if contract.task != "forecast":
        return judge(_tabular_panel(rows, contract, types, rules), NOW, contract.dataset, StalenessConfig())
    if not contract.ahead:
        return judge(_forecast_panel(rows, contract, types, rules), NOW, contract.dataset, StalenessConfig())
    future = _future_rows(rows, contract) if contract.known else _planned_rows(rows, contract)
    numbers = [number for number in range(len(rows)) if number not in future]
    try:
        past = _forecast_panel([rows[number] for number in numbers], contract, types, rules)
    except ServingError as error:
        raise reworded(error, [_renumbered(detail, numbers) for detail in error.details]) from error
    judged = judge(past, NOW, contract.dataset, StalenessConfig())
    return with_future(judged, future, contract, types, rules) if contract.known else judged


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
    places, sent = list(rows), _columns_of(rows.values(), (ENTITY, TIMESTAMP, *contract.known))
    times = moments(sent[TIMESTAMP])
    _refuse(chain(_entity_findings(sent[ENTITY], places), _time_findings(sent[TIMESTAMP], times, places)))
    _refuse(_known_findings(rows, contract, types))
    _refuse(_policy_findings(sent, _numbers_of(sent, contract.known, types, rules), contract.known, rules, places))
    entities = panel.entity_ids.tolist()
    owner = {entity: position for position, entity in enumerate(entities)}
    last = ns_of(panel.timestamps[panel.offsets[1:] - 1])
    found: dict[tuple[int, int], dict[str, Any]] = {}
    findings = []
    owners = np.array([owner.get(entity, -1) for entity in sent[ENTITY]], dtype=np.int64)
    steps_ahead, is_on = contract.calendar.between(last[owners], ns_of(times))
    for position, (number, row) in enumerate(rows.items()):
        place, ahead, moment = int(owners[position]), int(steps_ahead[position]), times[position]
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
    steps = list(missing)
    details = [
        ErrorDetail(
            field=FUTURE,
            found=f"no values of {', '.join(contract.known)} for step {ahead} of entity {shown(entities[place])}",
            expected=f"one row per step of the horizon, 1 to {contract.horizon}",
            action="send them: the model was trained to know them beforehand",
        )
        for place, ahead in steps[: MAX_DETAILS + 1]
    ]
    if details:
        raise invalid(
            "invalid_rows", details, [entities[place] for place in dict.fromkeys(place for place, _ in steps)]
        )


def _future_rows(rows: Rows, contract: Contract) -> dict[int, dict[str, Any]]:
    """Return the rows of the future by their number: those in which only known columns have values.

    A row without such values between others that have some is a gap in the past.
    """
    unknown = [name for name in contract.columns if name not in contract.ahead]
    found = {number: row for number, row in enumerate(rows) if all(row.get(name) is None for name in unknown)}
    last: dict[Any, dt.datetime] = {}
    for number, row in enumerate(rows):
        moment = utc_moment(row.get(TIMESTAMP))
        if number not in found and moment is not None:
            entity = str(row.get(ENTITY))
            last[entity] = max(moment, last.get(entity, moment))
    return {number: row for number, row in found.items() if not _is_before(row, last.get(str(row.get(ENTITY))))}


def _planned_rows(rows: Rows, contract: Contract) -> dict[int, dict[str, Any]]:
    """Return the rows behind the past by their number, of a pair that reads nothing ahead: the plans sent along.

    An entity without any row of a past keeps all of them, as a stored window without an observation is whole.
    """
    behind = _future_rows(rows, contract)
    has_past = {str(row.get(ENTITY)) for number, row in enumerate(rows) if number not in behind}
    is_planned = {
        str(row.get(ENTITY))
        for row in behind.values()
        if not contract.reads_plans or any(row.get(name) is not None for name in contract.planned)
    }
    return {number: row for number, row in behind.items() if str(row.get(ENTITY)) in is_planned & has_past}


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
            elif types[name] != "category" and numbers([value]) is None:
                yield _finding(number, name, shown(value), "a finite number", "send what is known of the future")


def _forecast_panel(rows: Rows, contract: Contract, types: Types, rules: RowRules) -> Panel:
    panel, _ = _forecast_panels(rows, [len(rows)], contract, types, rules)
    return panel


def _forecast_panels(
    rows: Rows, lengths: Sequence[int], contract: Contract, types: Types, rules: RowRules
) -> tuple[Panel, list[int]]:
    """Return the rows of requests, so many of each, as one panel, and how many entities of it each request has."""
    needed = contract.input_rows
    if not rows:
        expected = f"at least {needed} rows per entity in which a column that is not known beforehand has a value"
        detail = ErrorDetail(field=ROWS, found="no past", expected=expected, action="send the history as well")
        raise invalid("invalid_rows", [detail])
    sent = _sent(rows, required=(ENTITY, TIMESTAMP, *contract.columns))
    columns, times = _checked(sent, contract, types, rules)
    codes, entity_ids, counts = _entities(sent[ENTITY], lengths)
    order = np.lexsort((times, codes))
    _refuse(_grid_findings(times, codes, entity_ids, order, contract.calendar))
    if not rules.fallback.short_series.takes_few_rows:
        _refuse(_length_findings(codes, entity_ids, contract))
    ends = np.cumsum(np.bincount(codes))
    starts = np.concatenate([[0], ends[:-1]])
    places = ends[:, None] - needed + np.arange(needed)[None, :]
    # Before the first row of a short series are rows without values, as in the feature store.
    chosen = np.where(places >= starts[:, None], order[np.maximum(places, 0)], -1).reshape(-1)
    moments = contract.calendar.window(ns_of(times[order[ends - 1]]), needed)
    panel = Panel(
        columns={name: rows_or_missing(values, chosen) for name, values in columns.items()},
        timestamps=times_of(moments).reshape(-1),
        entity_ids=entity_ids,
        offsets=np.arange(len(entity_ids) + 1, dtype=np.int64) * needed,
    )
    return panel, counts


def _tabular_panel(rows: Rows, contract: Contract, types: Types, rules: RowRules) -> Panel:
    sent = _sent(rows, required=contract.columns, optional=(ENTITY, TIMESTAMP))
    columns, times = _checked(sent, contract, types, rules)
    entity_ids: npt.NDArray[np.generic] = np.arange(len(rows))
    if ENTITY in sent:
        codes, known, _ = _entities(sent[ENTITY], [len(rows)])
        entity_ids = known[codes]
    return Panel(columns, times, entity_ids, np.arange(len(rows) + 1, dtype=np.int64))


def _sent(rows: Rows, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Values]:
    """Return the values of a request by column: the required ones, and of the others those that a row has."""
    names = (*required, *(name for name in optional if any(name in row for row in rows)))
    found = by_column(rows, names)
    if found is None:
        _refuse(_key_findings(rows, required, optional))
    return found or _columns_of(rows, names)


def _columns_of(rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Values]:
    """Return the values of columns, a null where a row has none."""
    return {name: [row.get(name) for row in rows] for name in names}


def _checked(
    sent: Mapping[str, Values], contract: Contract, types: Types, rules: RowRules
) -> tuple[dict[str, npt.NDArray[np.generic]], npt.NDArray[np.datetime64]]:
    """Return the columns of a model and the times of its rows, NaT where rows have none, if nothing is wrong with them.

    Raises:
        ServingError: 422 with one detail per finding.
    """
    rows = len(sent[contract.columns[0]])
    times = moments(sent[TIMESTAMP]) if TIMESTAMP in sent else np.full(rows, np.datetime64("NaT", "ns"))
    read = _numbers_of(sent, contract.columns, types, rules)
    _refuse(
        chain(
            _entity_findings(sent[ENTITY]) if ENTITY in sent else (),
            _time_findings(sent[TIMESTAMP], times) if TIMESTAMP in sent else (),
            _value_findings(sent, read, contract.columns, rules),
        )
    )
    _refuse(_policy_findings(sent, read, contract.columns, rules))
    columns = {
        name: np.array(sent[name], object) if (found := read.get(name)) is None else found.astype(np.float32)
        for name in contract.columns
    }
    return columns, times


def _numbers_of(
    sent: Mapping[str, Values], columns: Sequence[str], types: Types, rules: RowRules
) -> dict[str, Float64 | None]:
    """Return the numeric columns as numbers, null as NaN; `None` where a value is none that is answered."""
    return {name: numbers(sent[name], rules.allows_null(name)) for name in columns if types[name] != "category"}


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


def _value_findings(
    sent: Mapping[str, Values], read: Mapping[str, Float64 | None], columns: Sequence[str], rules: RowRules
) -> Iterator[ErrorDetail]:
    for name in columns:
        values, allows_null = sent[name], rules.allows_null(name)
        or_null = " or null" if allows_null else ""
        if name not in read:
            if set(map(type, values)) <= ({str, type(None)} if allows_null else {str}):
                continue
            for number, value in enumerate(values):
                if type(value) is not str and not (allows_null and value is None):
                    action = "send the category as it stands in the data"
                    yield _finding(number, name, shown(value), f"text{or_null}", action)
        elif read[name] is None:
            for number, value in enumerate(values):
                if numbers([value], allows_null) is None:
                    action = "fill the gap or send other rows"
                    yield _finding(number, name, shown(value), f"a finite number{or_null}", action)


def _policy_findings(
    sent: Mapping[str, Values],
    read: Mapping[str, Float64 | None],
    columns: Sequence[str],
    rules: RowRules,
    places: Sequence[int] | None = None,
) -> Iterator[ErrorDetail]:
    """Find what the pair's preprocessing has no number for, and what it reads but the experiment's policy refuses.

    Parameters:
        read: the numeric columns, in which there is nothing else to find.
        places: numbers of the rows in the request; by default they stand there as here.
    """

    def findings(name: str, wrong: Iterable[int], expected: str, action: str) -> Iterator[ErrorDetail]:
        for row in wrong:
            yield _finding(places[row] if places else row, name, shown(sent[name][row]), expected, action)

    for name in columns:
        values = read.get(name)
        if values is not None and name in rules.floors:
            floor = rules.floors[name]
            below = np.flatnonzero(values.astype(np.float32) <= np.float32(floor)).tolist()
            expected = f"a number above {floor:g}, below which the pair's preprocessing has none"
            yield from findings(name, below, expected, "correct the value or send other rows")
        if values is not None and name in rules.limits and rules.policy.out_of_range == "refuse":
            low, high = rules.limits[name]
            beyond = np.flatnonzero((values < low) | (values > high)).tolist()
            ends = [f"at least {low:g}"] * (low > -np.inf) + [f"at most {high:g}"] * (high < np.inf)
            expected = f"{' and '.join(ends)}, as the dataset says"
            yield from findings(name, beyond, expected, "correct the value or leave the row out")
        if name in rules.categories and rules.policy.unseen_category == "refuse":
            known = rules.categories[name]
            unseen = (row for row, value in enumerate(sent[name]) if value is not None and value not in known)
            expected = f"a category of the training rows: {', '.join(sorted(known)[:MAX_DETAILS])}"
            yield from findings(name, unseen, expected, "send a known category")


def _entity_findings(values: Values, places: Sequence[int] | None = None) -> Iterator[ErrorDetail]:
    if are_ids(values):
        return
    first = type(values[0]) if values else int
    places = places or range(len(values))
    where = f"as in row {places[0]}" if values else ""
    expected = {int: f"a whole number, {where}", str: f"text, {where}"}.get(first, "a whole number or text")
    for number, value in zip(places, values, strict=True):
        fits = type(value) is first and (first is str or (first is int and value in INT64))
        if not fits:
            yield _finding(number, ENTITY, shown(value), expected, "send the id of the row's entity")


def _entities(values: Values, lengths: Sequence[int]) -> tuple[Int64, npt.NDArray[np.generic], list[int]]:
    """Return the position of each row's entity, the entities in order of appearance, and how many each request has.

    Parameters:
        lengths: rows of each request; an entity of two requests is two.
    """
    codes: list[int] = []
    entities: list[Any] = []
    counts = []
    for length in lengths:
        own = values[len(codes) : len(codes) + length]
        # Not by pandas, to which texts are equal that differ after a NUL character.
        places = {value: place for place, value in enumerate(dict.fromkeys(own), len(entities))}
        codes += map(places.__getitem__, own)
        entities += places
        counts.append(len(places))
    ids = np.array(entities, dtype=np.int64 if type(values[0]) is int else object)
    return np.array(codes, dtype=np.int64), ids, counts


def _time_findings(
    values: Values, times: npt.NDArray[np.datetime64], places: Sequence[int] | None = None
) -> Iterator[ErrorDetail]:
    expected = "an ISO 8601 time such as 2026-03-01T00:00:00Z"
    for row in np.flatnonzero(np.isnat(times)).tolist():
        yield _finding(
            places[row] if places else row, TIMESTAMP, shown(values[row]), expected, "write the time this way"
        )


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
    needed = contract.least_rows
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
