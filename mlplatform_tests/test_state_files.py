"""State that cannot be read is left out and told of once; what a newer version added is no damage."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from mlplatform.state_files import is_ahead, moment, parsed, read_state

NOW = dt.datetime(2026, 3, 10, 12, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Part:
    number: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Whole:
    part: Part
    share: float | None = None


def test_keys_that_nobody_knows_are_left_out_and_all_else_is_checked() -> None:
    assert parsed('{"part": {"number": 1, "names": ["a"], "newer": {}}, "newer": 2}', Whole) == Whole(Part(1, ("a",)))
    for damaged, where in (
        ("", "Invalid JSON"),
        ('{"part": {"number"', "Invalid JSON"),
        ("[]", "object"),
        ("null", "object"),
        ("{}", "part: "),
        ('{"part": {"number": "many"}}', "part.number: "),
        ('{"part": {"number": 1, "names": 3}}', "part.names: "),
    ):
        with pytest.raises(ValueError, match=where):
            parsed(damaged, Whole)


@pytest.mark.parametrize("damaged", [b"", b'{"part"', b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_file_is_named_once_until_it_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: bytes
) -> None:
    path = tmp_path / "state.json"
    read = partial(read_state, path, partial(parsed, kind=Whole), "do this")
    assert read() is None
    assert caplog.text == ""
    path.write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert read() is None
    (message,) = caplog.messages
    assert str(path) in message
    assert message.endswith("; do this")
    path.write_text('{"part": {"number": 1}}')
    assert read() == Whole(Part(1))


def test_a_disk_that_refuses_says_nothing_about_the_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_state(tmp_path, partial(parsed, kind=Whole), "")


def test_clocks_may_differ_by_a_day() -> None:
    assert moment("2026-03-10T12:00:00") == moment("2026-03-10T13:00:00+01:00") == NOW
    assert not is_ahead(NOW + dt.timedelta(hours=24), NOW)
    assert is_ahead(NOW + dt.timedelta(hours=25), NOW)
