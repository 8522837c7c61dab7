"""Raw rows are refused with a finding that names row, column, what was found and what to do, or become a panel."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlplatform.config import RequestsConfig
from mlplatform.registry import FallbackPolicy
from mlplatform.registry.forecaster import Contract
from serving.errors import MAX_DETAILS, ServingError
from serving.names import KeyNames
from serving.rows import STRICT, panel_from_rows, with_future_of_request
from serving.rules import Mark, RowRules

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
FORECAST = Contract(
    experiment="e",
    task="forecast",
    dataset="d",
    columns=("load", "oil", "cooling"),
    targets=("oil",),
    lookback=3,
    context=1,
    horizon=2,
    step_seconds=3600,
)
TABULAR = Contract(experiment="e", task="regression", dataset="d", columns=("width", "colour"), targets=("weight",))
TYPES = {"load": "float", "oil": "float", "cooling": "category", "width": "float", "colour": "category"}


def row(hour: int, entity: Any = 1, **changes: Any) -> dict[str, Any]:
    moment = (START + dt.timedelta(hours=hour)).isoformat()
    base = {"entity_id": entity, "event_timestamp": moment, "load": hour + 0.5, "oil": 10 * hour, "cooling": "air"}
    return {**base, **changes}


def refusal(rows: list[dict[str, Any]], contract: Contract = FORECAST, rules: RowRules = STRICT) -> ServingError:
    with pytest.raises(ServingError) as caught:
        panel_from_rows(rows, contract, TYPES, rules)
    assert (caught.value.status, caught.value.code) == (422, "invalid_rows")
    return caught.value


def test_a_forecast_panel_keeps_the_last_rows_of_every_entity_in_order_of_the_request() -> None:
    rows = [row(hour, entity) for hour in (4, 3, 2, 1, 0) for entity in (7, 2)]
    panel = panel_from_rows(rows, FORECAST, TYPES)
    assert panel.entity_ids.tolist() == [7, 2]
    assert panel.offsets.tolist() == [0, 4, 8]
    assert panel.columns["load"].tolist() == [1.5, 2.5, 3.5, 4.5] * 2
    assert panel.columns["load"].dtype == panel.columns["oil"].dtype == np.float32
    assert panel.columns["cooling"].tolist() == ["air"] * 8
    assert panel.timestamps[3] == np.datetime64("2026-03-01T04:00", "ns")


def test_times_of_any_zone_and_without_one_mean_the_same_moment() -> None:
    texts = ["2026-03-01T00:00:00Z", "2026-03-01T02:00:00+01:00", "2026-03-01T02:00", "2026-02-28T22:00:00-05:00"]
    rows = [row(hour, event_timestamp=text) for hour, text in enumerate(texts)]
    times = panel_from_rows(rows, FORECAST, TYPES).timestamps
    assert times.tolist() == [np.datetime64(f"2026-03-01T0{hour}", "ns").item() for hour in range(4)]


def test_text_ids_are_kept_as_text() -> None:
    panel = panel_from_rows([row(hour, "north") for hour in range(4)], FORECAST, TYPES)
    assert panel.entity_ids.tolist() == ["north"]


@pytest.mark.parametrize("ids", [["007", "7", "7.0"], ["a\0", "a", "a\0b"], [2**53, 2**53 + 1, 2**63 - 1]])
def test_ids_that_look_alike_are_entities_of_their_own(ids: list[Any]) -> None:
    rows = [row(hour, entity, load=number) for hour in range(4) for number, entity in enumerate(ids)]
    panel = panel_from_rows(rows, FORECAST, TYPES)
    assert panel.entity_ids.tolist() == ids
    assert panel.columns["load"].tolist() == [number for number in range(3) for _ in range(4)]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, "null"),
        ("12.5", "'12.5'"),
        (True, "true"),
        ([1], "[1]"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (1e39, "1e+39"),
    ],
)
def test_a_value_that_is_no_finite_float32_is_named(value: Any, found: str) -> None:
    rows = [row(hour) for hour in range(4)]
    rows[2]["oil"] = value
    error = refusal(rows)
    assert error.message == (f"rows[2].oil: found {found}, expected a finite number; fill the gap or send other rows")
    detail = error.details[0]
    assert (detail.row, detail.column, detail.found) == (2, "oil", found)


@pytest.mark.parametrize("value", [None, 3, ["air"]])
def test_a_category_must_be_text(value: Any) -> None:
    rows = [row(hour) for hour in range(4)]
    rows[1]["cooling"] = value
    assert refusal(rows).message.startswith("rows[1].cooling: found ")
    assert refusal(rows).details[0].expected == "text"


def test_a_missing_and_an_unknown_column_are_both_named() -> None:
    rows = [row(hour) for hour in range(4)]
    del rows[3]["load"]
    rows[3]["lod"] = 1.0
    missing, unknown = refusal(rows).details
    assert (missing.field, missing.found) == ("rows[3].load", "no such column")
    assert (unknown.field, unknown.expected) == (
        "rows[3].lod",
        "one of entity_id, event_timestamp, load, oil, cooling",
    )


@pytest.mark.parametrize("name", ["entity_id", "event_timestamp"])
def test_a_forecast_row_needs_its_entity_and_time(name: str) -> None:
    rows = [row(hour) for hour in range(4)]
    del rows[0][name]
    assert refusal(rows).details[0].field == f"rows[0].{name}"


def test_the_same_hour_twice_names_both_rows() -> None:
    error = refusal([row(hour) for hour in (0, 1, 2, 3, 2)])
    assert error.details[0].row == 4
    assert error.details[0].found == "2026-03-01T02:00:00Z twice for entity 1 (also in row 2)"
    assert error.details[0].action == "send every time once"


def test_a_missing_step_names_its_neighbours() -> None:
    error = refusal([row(hour) for hour in (0, 1, 2, 4, 5)])
    assert error.details[0].found == "2026-03-01T04:00:00Z next after 2026-03-01T02:00:00Z (row 2) for entity 1"
    assert error.details[0].expected == "a time step of 1 hour"


def test_short_series_are_windows_that_begin_without_values_where_the_policy_answers_them() -> None:
    rows = [row(hour, 1) for hour in range(4)] + [row(hour, 2) for hour in (2, 3)]
    panel = panel_from_rows(rows, FORECAST, TYPES, RowRules(fallback=FallbackPolicy(short="model")))
    assert panel.entity_ids.tolist() == [1, 2]
    assert panel.timestamps[4:].tolist() == panel.timestamps[:4].tolist()
    assert np.isnan(panel.columns["oil"][4:6]).all()
    assert panel.columns["oil"][6:].tolist() == [20, 30]
    assert panel.columns["cooling"].tolist() == ["air"] * 4 + [None, None, "air", "air"]
    assert "2 rows for entity 2" in str(refusal(rows).details[0].found)
    for short in ("skip", "refuse"):
        rules = RowRules(fallback=FallbackPolicy(short=short))
        panel = panel_from_rows(rows, FORECAST, TYPES, rules)
        with pytest.raises(ServingError, match="1 entities \\(2\\) are too short") as caught:
            rules.judge(panel, FORECAST, None)
        assert (caught.value.status, caught.value.code) == (409, "short_window")
        assert (caught.value.entities, caught.value.is_left_out) == ((2,), short == "skip")


def test_too_few_rows_names_the_entity_and_both_lengths() -> None:
    error = refusal([*[row(hour) for hour in range(4)], *[row(hour, 9) for hour in range(3)]])
    assert error.message == (
        "rows: found 3 rows for entity 9, expected at least 4 (lookback 3 + preprocessing context 1); "
        "send a longer history"
    )


@pytest.mark.parametrize("text", ["yesterday", "", 5, None, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:00"])
def test_a_time_that_is_none_is_named(text: Any) -> None:
    rows = [row(hour) for hour in range(4)]
    rows[1]["event_timestamp"] = text
    error = refusal(rows)
    assert error.details[0].field == "rows[1].event_timestamp"
    assert error.details[0].expected == "an ISO 8601 time such as 2026-03-01T00:00:00Z"


@pytest.mark.parametrize(("first", "second"), [(1, "1"), ("1", 1), (1, None), (1.5, 1.5), (True, 1), (2**63, 1)])
def test_entity_ids_must_be_whole_numbers_or_text_but_not_both(first: Any, second: Any) -> None:
    rows = [row(0, first), *[row(hour, second) for hour in range(1, 4)]]
    assert refusal(rows).details[0].column == "entity_id"


def test_a_hostile_body_is_not_answered_with_a_finding_per_row() -> None:
    error = refusal([{} for _ in range(100_000)])
    assert len(error.details) == MAX_DETAILS
    assert f"the first {MAX_DETAILS} are in details" in error.message


def test_a_long_value_is_cut_in_the_message() -> None:
    rows = [row(hour) for hour in range(4)]
    rows[0]["oil"] = "x" * 100_000
    assert len(refusal(rows).message) < 300


def test_tabular_rows_are_numbered_when_they_have_no_id() -> None:
    panel = panel_from_rows([{"width": 1, "colour": "red"}, {"width": 2.5, "colour": "blue"}], TABULAR, TYPES)
    assert panel.entity_ids.tolist() == [0, 1]
    assert panel.columns["width"].tolist() == [1.0, 2.5]
    assert panel.offsets.tolist() == [0, 1, 2]


def test_tabular_rows_may_repeat_an_id() -> None:
    rows = [{"entity_id": "a", "width": 1, "colour": "red"}, {"entity_id": "a", "width": 2, "colour": "red"}]
    assert panel_from_rows(rows, TABULAR, TYPES).entity_ids.tolist() == ["a", "a"]


def test_tabular_rows_must_not_bring_the_target() -> None:
    error = refusal([{"width": 1, "colour": "red", "weight": 3}], TABULAR)
    assert error.details[0].field == "rows[0].weight"
    assert error.details[0].action == "leave it out"


def test_tabular_rows_with_an_id_in_some_rows_only_are_refused() -> None:
    error = refusal([{"entity_id": 1, "width": 1, "colour": "red"}, {"width": 1, "colour": "red"}], TABULAR)
    assert error.details[0].field == "rows[1].entity_id"


KNOWING = replace(FORECAST, known=("load", "cooling"))


def ahead(hour: int, entity: Any = 1, **changes: Any) -> dict[str, Any]:
    """Return a row of the future: what is known beforehand, and nothing else."""
    return {name: value for name, value in row(hour, entity, **changes).items() if name != "oil"}


def past_and_future() -> list[dict[str, Any]]:
    """Return two entities whose pasts end at different hours, in no order."""
    rows = [row(hour, 1) for hour in range(5)] + [row(hour, 2) for hour in range(4)]
    return [ahead(6, 1), *rows, ahead(4, 2), ahead(5, 1), ahead(5, 2)]


def test_rows_of_the_future_follow_the_past_of_their_entity() -> None:
    panel = panel_from_rows(past_and_future(), KNOWING, TYPES)
    assert panel.offsets.tolist() == [0, 6, 12]
    assert panel.columns["load"].tolist() == [1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert panel.columns["cooling"].tolist() == ["air"] * 12
    assert np.isnan(panel.columns["oil"]).tolist() == ([False] * 4 + [True] * 2) * 2
    hours = (panel.timestamps - np.datetime64("2026-03-01T00:00", "ns")) // np.timedelta64(1, "h")
    assert hours.tolist() == [1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5]
    # The newest row with a value is the last one of the past.
    assert panel.event_times.tolist() == [panel.timestamps[3].item(), panel.timestamps[9].item()]


def test_a_step_of_the_future_that_is_missing_is_named() -> None:
    error = refusal([each for each in past_and_future() if each != ahead(5, 1)], KNOWING)
    assert error.details[0].found == "no values of load, cooling for step 1 of entity 1"
    assert error.details[0].expected == "one row per step of the horizon, 1 to 2"


@pytest.mark.parametrize("wrong", [ahead(8, 1), ahead(5, 3), ahead(5, 1), ahead(4, 1)], ids=str)
def test_a_row_of_the_future_that_belongs_nowhere_is_named(wrong: dict[str, Any]) -> None:
    error = refusal([*past_and_future(), wrong], KNOWING)
    assert error.details[0].field == "rows[13].event_timestamp"
    assert error.details[0].expected == "each of the 2 steps after the entity's last row of the past, once"


def test_findings_about_the_past_have_the_numbers_of_the_request() -> None:
    rows = past_and_future()
    rows[3]["oil"] = "hot"
    assert refusal(rows, KNOWING).details[0].field == "rows[3].oil"


def test_an_unknown_value_of_the_future_is_named() -> None:
    rows = past_and_future()
    rows[0]["load"] = None
    assert refusal(rows, KNOWING).details[0].field == "rows[0].load"


def test_what_is_no_number_is_named_before_the_policy_compares_it() -> None:
    rows = past_and_future()
    rows[0]["load"] = "heavy"
    rules = RowRules(limits={"load": (0.0, 9.0)}, policy=RequestsConfig(out_of_range="refuse"), floors={"load": -1.0})
    assert refusal(rows, KNOWING, rules).message.startswith("rows[0].load: found 'heavy', expected a finite number")


def test_a_future_without_any_past_is_refused() -> None:
    error = refusal([each for each in past_and_future() if "oil" not in each], KNOWING)
    assert error.message.startswith("rows: found no past, expected at least 4 rows per entity")


def test_values_beyond_the_limits_are_refused_by_row_where_the_policy_says_so() -> None:
    rows = [row(hour, oil=10.0) for hour in range(4)]
    rows[1]["oil"], rows[2]["oil"], rows[3]["cooling"] = None, 9.5, "steam"
    rules = RowRules(
        limits={"oil": (9.75, np.inf)},
        categories={"cooling": frozenset({"air"})},
        nullable=frozenset({"oil"}),
        policy=RequestsConfig(out_of_range="refuse", unseen_category="refuse"),
    )
    found = [(detail.field, detail.found, detail.expected) for detail in refusal(rows, rules=rules).details]
    assert found == [
        ("rows[2].oil", "9.5", "at least 9.75, as the dataset says"),
        ("rows[3].cooling", "'steam'", "a category of the training rows: air"),
    ]


def test_the_future_of_entities_of_the_store_comes_with_the_request() -> None:
    rows = past_and_future()
    stored = panel_from_rows([each for each in rows if "oil" in each], FORECAST, TYPES)
    future = [each for each in rows if "oil" not in each]
    together = with_future_of_request(stored, future, KNOWING, TYPES)
    expected = panel_from_rows(rows, KNOWING, TYPES)
    for name in FORECAST.columns:
        np.testing.assert_array_equal(together.columns[name], expected.columns[name])
    assert together.timestamps.tolist() == expected.timestamps.tolist()
    assert with_future_of_request(stored, [], FORECAST, TYPES) is stored
    with pytest.raises(ServingError, match="nothing: the model reads the past only"):
        with_future_of_request(stored, future, FORECAST, TYPES)
    with pytest.raises(ServingError, match="no values of load, cooling for step 1 of entity 1"):
        with_future_of_request(stored, [], KNOWING, TYPES)


OWN = RowRules(names=KeyNames("line", "time"))


def renamed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with entity and time named as the dataset does."""
    names = {"entity_id": "line", "event_timestamp": "time"}
    return [{names.get(name, name): value for name, value in each.items()} for each in rows]


def test_rows_under_the_datasets_names_are_the_same_rows() -> None:
    expected = panel_from_rows(past_and_future(), KNOWING, TYPES)
    mixed = [*renamed(past_and_future()[:5]), *past_and_future()[5:]]
    for rows in (renamed(past_and_future()), past_and_future(), mixed):
        panel = panel_from_rows(rows, KNOWING, TYPES, OWN)
        assert panel.timestamps.tolist() == expected.timestamps.tolist()
        assert panel.entity_ids.tolist() == expected.entity_ids.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time": 5}, "rows[1].time: found 5, expected an ISO 8601 time"),
        ({"line": None}, "rows[1].line: found null, expected a whole number, as in row 0"),
        ({"lod": 1}, "rows[1].lod: found a column that the model does not read, expected one of line, time, load, oil"),
        ({"entity_id": 1}, "rows[1].line: found both line and entity_id, expected one of them; leave one out"),
    ],
)
def test_findings_are_told_under_the_clients_names(changes: dict[str, Any], message: str) -> None:
    rows = renamed([row(hour) for hour in range(4)])
    rows[1].update(changes)
    assert refusal(rows, FORECAST, OWN).message.startswith(message)
    del rows[1]["line"], rows[1]["time"]
    assert [detail.column for detail in refusal(rows, FORECAST, OWN).details][:1] in (["line"], ["time"])


def test_findings_about_the_future_of_a_request_name_its_field() -> None:
    rows = past_and_future()
    stored = panel_from_rows([each for each in rows if "oil" in each], FORECAST, TYPES)
    future = renamed([each for each in rows if "oil" not in each])
    assert with_future_of_request(stored, future, KNOWING, TYPES, OWN).rows == 12
    for changes, start in (
        ({"load": None}, "future[2].load: found null"),
        ({"time": "soon"}, "future[2].time: found 'soon'"),
        ({"line": 7}, "future[2].time: found 2026-03-01T05:00:00Z for entity 7"),
    ):
        broken = [dict(each) for each in future]
        broken[2].update(changes)
        with pytest.raises(ServingError) as caught:
            with_future_of_request(stored, broken, KNOWING, TYPES, OWN)
        assert caught.value.message.startswith(start)
    with pytest.raises(ServingError, match=r"^future: found no values of load, cooling for step 1 of entity 1"):
        with_future_of_request(stored, [], KNOWING, TYPES, OWN)
    # In rows of `/predict` the future stands among the others.
    assert refusal([each for each in rows if "oil" in each], KNOWING).details[0].field == "rows"


def test_a_number_that_preprocessing_has_none_for_is_refused_by_row() -> None:
    rows = [row(hour, oil=10.0) for hour in range(4)]
    rows[2]["oil"] = -1
    rules = RowRules(floors={"oil": -1.0}, nullable=frozenset({"oil"}))
    detail = refusal(rows, rules=rules).details[0]
    assert (detail.row, detail.column, detail.found) == (2, "oil", "-1")
    assert detail.expected.startswith("a number above -1")


READING = RowRules(nullable=frozenset({"oil", "cooling"}))


def test_a_null_is_read_where_the_pair_fills_or_reads_it() -> None:
    rows = [row(hour) for hour in range(4)]
    rows[1]["oil"] = rows[2]["cooling"] = None
    panel = panel_from_rows(rows, FORECAST, TYPES, READING)
    assert np.isnan(panel.columns["oil"]).tolist() == [False, True, False, False]
    assert panel.columns["cooling"].tolist() == ["air", "air", None, "air"]
    assert READING.marks(panel, FORECAST) == ((Mark("missing", "oil", 1), Mark("missing", "cooling", 1)),)
    rows[1]["load"] = None
    assert refusal(rows, FORECAST, READING).message.startswith("rows[1].load: found null, expected a finite number;")


def test_a_gap_in_the_past_is_not_taken_for_the_future() -> None:
    rows = past_and_future()
    gap = next(each for each in rows if each["entity_id"] == 1 and "oil" in each and each["oil"] == 20)
    gap["oil"] = None
    panel = panel_from_rows(rows, KNOWING, TYPES, READING)
    assert np.isnan(panel.columns["oil"]).tolist() == [False, True, False, False, True, True] + [False] * 4 + [True] * 2
    # What is unknown of the future is not missing.
    assert READING.marks(panel, KNOWING) == ((Mark("missing", "oil", 1),), ())
