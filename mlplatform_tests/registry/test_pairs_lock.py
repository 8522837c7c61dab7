"""The writer's lock: one at a time, on one machine and on several, and the dead do not hold it for ever."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mlplatform.registry.pairs import PairConflictError, lock
from mlplatform.registry.pairs.lock import PREFIX, Ticket, only_writer
from mlplatform.testing.tiny_pair import NAME, TinyRegistry

MODEL = f"{NAME}_model"


def elsewhere(tiny: TinyRegistry, folder: Path) -> TinyRegistry:
    """Return the same registry as seen from a machine with a state folder of its own."""
    return replace(tiny, settings=replace(tiny.settings, home=folder))


def tickets(tiny: TinyRegistry) -> list[str]:
    return [key for key in tiny.store.client.get_registered_model(MODEL).tags if key.startswith(PREFIX)]


def test_machines_that_share_a_server_write_one_at_a_time(tiny: TinyRegistry, tmp_path: Path) -> None:
    inside, most, order = 0, 0, []

    def write(machine: TinyRegistry, turn: int) -> None:
        nonlocal inside, most
        with only_writer(machine.store.client, machine.settings, NAME):
            inside += 1
            most = max(most, inside)
            time.sleep(0.02)
            order.append(turn)
            inside -= 1

    machines = [elsewhere(tiny, tmp_path / f"machine_{number}") for number in range(4)]
    threads = [threading.Thread(target=write, args=(machine, turn)) for turn, machine in enumerate(machines * 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert sorted(order) == list(range(8))
    assert tickets(tiny) == []


def dead_writer(machine: TinyRegistry) -> None:
    """Leave what a process leaves that ends in the middle of writing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ticket, "give_up", lambda _: None)
        with only_writer(machine.store.client, machine.settings, NAME):
            pass


def test_a_dead_writer_on_the_same_machine_is_passed_over_at_once(tiny: TinyRegistry) -> None:
    dead_writer(tiny)
    assert len(tickets(tiny)) == 1
    started = time.monotonic()
    tiny.store.promote(NAME, 1, "test", "a test")
    assert time.monotonic() - started < lock.LEASE_S / 2
    assert tickets(tiny) == []


def test_a_dead_writer_on_another_machine_is_waited_for_as_long_as_its_lease(
    tiny: TinyRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LEASE_S", 1.5)
    dead_writer(elsewhere(tiny, tmp_path / "another"))
    started = time.monotonic()
    tiny.store.promote(NAME, 1, "test", "a test")
    assert time.monotonic() - started >= 1.5
    assert tickets(tiny) == []


def test_a_writer_that_still_renews_its_lease_is_not_taken_for_dead(
    tiny: TinyRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LEASE_S", 1.5)
    other = elsewhere(tiny, tmp_path / "another")
    waiter = threading.Thread(target=lambda: tiny.store.promote(NAME, 1, "test", "a test"))
    with only_writer(other.store.client, other.settings, NAME) as ticket:
        waiter.start()
        until = time.monotonic() + 3
        while time.monotonic() < until:
            ticket.keep()
            time.sleep(0.1)
        assert tiny.store.find(NAME, "production") is None
    waiter.join()
    assert tiny.store.resolve(NAME).version == 1


def test_a_writer_that_was_taken_for_dead_stops(tiny: TinyRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    with only_writer(tiny.store.client, tiny.settings, NAME) as ticket:
        (key,) = tickets(tiny)
        tiny.store.client.delete_registered_model_tag(MODEL, key)
        ticket.keep()
        monkeypatch.setattr(lock, "LEASE_S", 0.0)
        with pytest.raises(PairConflictError, match="another writer went on"):
            ticket.keep()
