"""Messages as rows: every message becomes one, and the bad ones end in quarantine under validation."""

from __future__ import annotations

import json

import pytest

from mlplatform.data.errors import DataError
from mlplatform.data.sources.messages import Message, rows_from_messages
from mlplatform.data.validation import validate
from mlplatform_tests.data.conftest import hourly_dataset

GOOD = b'{"time": "2024-01-01T00:00:00Z", "flow": 1.5, "pressure": 2, "state": "open"}'


def test_an_object_is_a_row_and_a_name_it_lacks_is_missing() -> None:
    messages = [GOOD, b'{"time": "2024-01-01T01:00:00Z", "pressure": 3, "other": 1}']
    rows = validate(rows_from_messages(messages, hourly_dataset(), is_first=True), hourly_dataset()).rows
    assert rows["pressure"].tolist() == [2, 3]
    assert rows["flow"].isna().tolist() == [False, True]
    assert rows["state"].tolist() == ["open", None]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        None,
        b"not JSON",
        b"[1, 2]",
        b"2024-01-01T00:00:00Z",
        b'"2024-01-01T00:00:00Z"',
        b"\xff\xfe{}",
        b'{"time": "2024-01-01T05:00:00Z", "pressure": NaN}',
        b'{"time": "2024-01-01T05:00:00Z", "pressure": 1, "state": "\\ud800"}',
        b'{"time": ["2024-01-01T05:00:00Z"], "pressure": 1}',
        b'{"time": "2024-01-01T05:00:00Z", "pressure": {"bar": 1}}',
        b'{"time": "2024-01-01T05:00:00Z", "pressure": 123456789012345678901234567890123456789012}',
        b'{"time": 1704067200, "pressure": 1}',
        b"[" * 100_000,
    ],
)
def test_a_bad_message_is_quarantined_beside_a_good_one(message: Message) -> None:
    dataset = hourly_dataset()
    result = validate(rows_from_messages([message, GOOD], dataset, is_first=False), dataset)
    assert len(result.rows) == 1
    assert result.quarantine["row"].tolist() == [0]


def test_the_quarantine_shows_the_message() -> None:
    result = validate(rows_from_messages([b"pump 3 is \xfft", GOOD], hourly_dataset(), is_first=True), hourly_dataset())
    assert result.quarantine["time"].tolist() == ["not a JSON object: pump 3 is \N{REPLACEMENT CHARACTER}t"]


def test_lists_and_objects_are_left_to_the_validation() -> None:
    message = json.dumps(json.loads(GOOD) | {"state": {"a": [1, None]}}).encode()
    assert rows_from_messages([message], hourly_dataset(), is_first=True)["state"].tolist() == [{"a": [1, None]}]


def test_a_misspelt_column_is_named_by_the_first_messages_and_later_ones_may_lack_it() -> None:
    dataset = hourly_dataset(columns={"flo": {}})
    with pytest.raises(DataError, match="lacks the data column 'flo'; columns found: time, flow, pressure, state"):
        rows_from_messages([b"bad", GOOD], dataset, is_first=True)
    assert len(rows_from_messages([b"bad"], dataset, is_first=True)) == 1
    assert rows_from_messages([GOOD], dataset, is_first=False)["flo"].tolist() == [None]
