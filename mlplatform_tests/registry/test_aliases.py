"""Aliases: one of them decides, the others follow, and every move is on record."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import mlflow
import pytest

from mlplatform.registry.pairs import ROLES, AliasChange, PairConflictError, PairNotFoundError, aliases
from mlplatform.testing.tiny_pair import NAME, TinyRegistry

MODEL = f"{NAME}_model"


def stored(tiny: TinyRegistry, role: str) -> dict[str, int]:
    found = tiny.store.client.get_registered_model(f"{NAME}_{role}").aliases
    return {alias: int(version) for alias, version in found.items()}


def promote(tiny: TinyRegistry, *versions: int) -> None:
    for version in versions:
        tiny.store.promote(NAME, version, "ann", f"why {version}")


def production(tiny: TinyRegistry) -> list[AliasChange]:
    return [change for change in tiny.store.history(NAME) if change.alias == "production"]


def moves(tiny: TinyRegistry) -> list[tuple[int | None, int | None, str]]:
    return [(change.from_version, change.to_version, change.who) for change in production(tiny)]


def test_promotion_moves_every_mirror_and_keeps_the_replaced_pair_as_previous(tiny: TinyRegistry) -> None:
    promote(tiny, 1, 2)
    expected = {"staging": 3, "production": 2, "previous": 1}
    assert {role: stored(tiny, role) for role in ROLES} == dict.fromkeys(ROLES, expected)
    promote(tiny, 2)
    assert stored(tiny, "model") == expected
    assert len(production(tiny)) == 2


def test_every_change_is_recorded_with_who_when_and_why(tiny: TinyRegistry) -> None:
    before = dt.datetime.now(dt.UTC)
    promote(tiny, 1)
    tiny.store.set_alias(NAME, "canary", 2, who="bob", why="a trial")
    history = tiny.store.history(NAME)
    assert [(change.alias, change.to_version) for change in history] == [
        ("staging", 1),
        ("staging", 2),
        ("staging", 3),
        ("production", 1),
        ("canary", 2),
    ]
    last = history[-1]
    assert (last.from_version, last.who, last.why, last.number) == (None, "bob", "a trial", 1)
    assert before <= history[3].when <= last.when <= dt.datetime.now(dt.UTC)
    assert history[0].why == f"registered by MLflow run {tiny.run_id}"
    assert tiny.store.resolve(NAME).promoted_at == history[3].when
    assert tiny.store.resolve(NAME, 2).promoted_at is None


def test_rolling_back_and_forth_trades_places(tiny: TinyRegistry) -> None:
    promote(tiny, 1, 2)
    for expected in (1, 2):
        assert tiny.store.rollback(NAME, who="bob", why="worse").version == expected
        assert stored(tiny, "model") == {"staging": 3, "production": expected, "previous": 3 - expected}
    assert moves(tiny)[-2:] == [(2, 1, "bob"), (1, 2, "bob")]


def test_rolling_back_to_a_version_given(tiny: TinyRegistry) -> None:
    promote(tiny, 1, 2, 3)
    assert tiny.store.rollback(NAME, to=1, who="bob", why="two bad ones").version == 1
    assert tiny.store.resolve(NAME, "previous").version == 3
    with pytest.raises(PairNotFoundError, match="version 1 of 'tiny' is in production already"):
        tiny.store.rollback(NAME, to=1, who="bob", why="again")
    with pytest.raises(PairNotFoundError, match="version 9"):
        tiny.store.rollback(NAME, to=9, who="bob", why="no such version")


def test_without_a_previous_pair_there_is_nothing_to_roll_back_to(tiny: TinyRegistry) -> None:
    promote(tiny, 1)
    with pytest.raises(PairNotFoundError, match="previous"):
        tiny.store.rollback(NAME, who="bob", why="worse")


def test_a_decision_against_another_champion_is_not_executed(tiny: TinyRegistry) -> None:
    promote(tiny, 1)
    tiny.store.promote(NAME, 3, "a", "better than 1", champion=1)
    with pytest.raises(PairConflictError, match="replace version 1, but meanwhile production is on version 3"):
        tiny.store.promote(NAME, 2, "b", "better than 1", champion=1)
    with pytest.raises(PairConflictError, match="replace no version"):
        tiny.store.promote(NAME, 2, "b", "the first", champion=None)
    assert tiny.store.resolve(NAME).version == 3


def test_computed_aliases_cannot_be_set(tiny: TinyRegistry) -> None:
    for alias in ("production", "previous", "latest"):
        with pytest.raises(ValueError, match=alias):
            tiny.store.set_alias(NAME, alias, 1, who="bob", why="a test")
    with pytest.raises(PairNotFoundError, match="version 7"):
        tiny.store.set_alias(NAME, "canary", 7, who="bob", why="a test")


def test_mirrors_found_behind_are_brought_in_line_by_the_next_write(tiny: TinyRegistry) -> None:
    promote(tiny, 1, 2)
    client = tiny.store.client
    client.set_registered_model_alias(f"{NAME}_preprocessor", "production", "1")
    client.delete_registered_model_alias(f"{NAME}_forecaster", "previous")
    client.set_registered_model_alias(f"{NAME}_forecaster", "stray", "1")
    client.set_registered_model_alias(MODEL, "previous", "3")
    tiny.store.set_alias(NAME, "staging", 3, who="bob", why="no change")
    expected = {"staging": 3, "production": 2, "previous": 1}
    assert {role: stored(tiny, role) for role in ROLES} == dict.fromkeys(ROLES, expected)


def test_a_change_by_hand_shows_in_the_history(tiny: TinyRegistry) -> None:
    promote(tiny, 1, 2)
    tiny.store.client.set_registered_model_alias(MODEL, "production", "1")
    assert moves(tiny)[-1] == (2, 1, "unknown")
    assert production(tiny)[-1].why == aliases.OUTSIDE
    assert tiny.store.resolve(NAME, "previous").version == 2
    promote(tiny, 3)
    assert moves(tiny) == [(None, 1, "ann"), (1, 2, "ann"), (2, 1, "unknown"), (1, 3, "ann")]


@pytest.fixture
def cut_off(tiny: TinyRegistry, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Starts a promotion that ends right before its n-th call of a method."""

    def run(method: str, count: int) -> None:
        write, calls = getattr(mlflow.MlflowClient, method), []

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls.append(args)
            if len(calls) == count:
                raise KeyboardInterrupt
            return write(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(mlflow.MlflowClient, method, counted)
            with pytest.raises(KeyboardInterrupt):
                promote(tiny, 2)

    return run


def test_an_announced_change_that_did_not_happen_is_no_history(
    tiny: TinyRegistry, cut_off: Callable[[str, int], None]
) -> None:
    promote(tiny, 1)
    cut_off("set_registered_model_alias", 1)
    assert moves(tiny) == [(None, 1, "ann")]
    promote(tiny, 3)
    assert moves(tiny) == [(None, 1, "ann"), (1, 3, "ann")]
    assert [change.number for change in production(tiny)] == [1, 2]


def test_a_change_that_happened_is_history_even_if_its_record_was_not_finished(
    tiny: TinyRegistry, cut_off: Callable[[str, int], None]
) -> None:
    promote(tiny, 1)
    # Two tags of the lock, the announcement, and then the mark that it is done.
    cut_off("set_registered_model_tag", 4)
    assert moves(tiny) == [(None, 1, "ann"), (1, 2, "ann")]
    assert tiny.store.resolve(NAME, "previous").version == 1
    # The next writer finishes it, so that a change by hand after that is told apart.
    tiny.store.repair(NAME)
    tiny.store.client.set_registered_model_alias(MODEL, "production", "1")
    assert moves(tiny) == [(None, 1, "ann"), (1, 2, "ann"), (2, 1, "unknown")]


def test_the_history_of_an_alias_stays_within_bounds(tiny: TinyRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliases, "KEPT_CHANGES", 3)
    promote(tiny, 1, 2, 3, 1, 2)
    assert [change.number for change in production(tiny)] == [3, 4, 5]
    assert moves(tiny) == [(2, 3, "ann"), (3, 1, "ann"), (1, 2, "ann")]


def test_long_reasons_fit_a_tag(tiny: TinyRegistry) -> None:
    tiny.store.promote(NAME, 1, "é" * 5000, "ü" * 50_000)
    text = tiny.store.client.get_registered_model(MODEL).tags["alias_history.production.000001"]
    assert len(text) < 5000
    assert production(tiny)[0].why == "ü" * 1000
