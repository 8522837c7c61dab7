"""Calls of deployments that are sent together: each has its own answer, or its own failure."""

from __future__ import annotations

import asyncio
import contextvars
import pickle
from collections.abc import Awaitable
from typing import Any

import pytest

from serving.ray_calls import LARGEST_GROUP, THROUGHPUT, Grouped, Service


class UnportableError(Exception):
    """One that cannot be made anew from what pickle keeps of it."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


class Replica(Grouped):
    """A deployment that doubles numbers."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def double(self, number: int) -> int:
        await asyncio.sleep(0.01)
        if number == 13:
            raise LookupError("no such number")
        if number == 14:
            raise UnportableError(1, 4)
        return 2 * number

    async def forever(self) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            self.ended.set()

    async def failure(self) -> Exception:
        return ValueError("what a client did wrong is a value")


class Handle:
    """Stands for Ray's handle: what travels is pickled, and what was sent is kept."""

    def __init__(self) -> None:
        self.replica, self.is_away = Replica(), False
        self.sent: list[str] = []
        self.sizes: list[int] = []

    def options(self, method_name: str, **_: str) -> Any:
        return Method(self, method_name)


class Method:
    def __init__(self, handle: Handle, name: str) -> None:
        self._handle, self._name = handle, name

    def remote(self, *arguments: Any) -> Awaitable[Any]:
        travelling = travelled(arguments)

        async def answered() -> Any:
            self._handle.sent.append(self._name)
            self._handle.sizes.append(len(arguments[0]) if self._name == "answer_all" else 1)
            if self._handle.is_away:
                raise ConnectionError("away")
            return travelled(await getattr(self._handle.replica, self._name)(*travelling))

        return answered()


def travelled(value: Any) -> Any:
    """Return a value as it is on the other side."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - written in this line


async def asked(service: Service, *numbers: int) -> list[Any]:
    calls = (service.ask("double", number, group=1) for number in numbers)
    return await asyncio.gather(*calls, return_exceptions=True)


def test_calls_of_one_moment_are_sent_together_and_a_bad_one_fails_alone() -> None:
    handle = Handle()
    service = Service(handle, gathers=True)  # type: ignore[arg-type]
    found = asyncio.run(asked(service, 1, 13, 14, 2))
    assert handle.sent == ["answer_all"]
    assert (found[0], found[3]) == (2, 4)
    assert isinstance(found[1], LookupError)
    assert (type(found[2]), str(found[2])) == (RuntimeError, "UnportableError: 1 and 4")


def test_what_is_returned_is_not_raised_even_if_it_is_an_exception() -> None:
    async def scenario() -> Any:
        return await Service(Handle(), gathers=True).ask("failure", group=1)  # type: ignore[arg-type]

    assert isinstance(asyncio.run(scenario()), ValueError)


def test_a_group_that_fails_as_a_whole_fails_each_of_its_calls_and_no_later_ones() -> None:
    handle = Handle()
    service = Service(handle, gathers=True)  # type: ignore[arg-type]

    async def scenario() -> list[Any]:
        handle.is_away = True
        failed = await asked(service, 1, 2)
        handle.is_away = False
        return [*failed, *await asked(service, 3)]

    first, second, third = asyncio.run(scenario())
    assert (str(first), str(second), third) == ("away", "away", 6)


def test_a_call_that_nobody_waits_for_is_not_sent() -> None:
    handle = Handle()
    service = Service(handle, gathers=True)  # type: ignore[arg-type]

    async def scenario() -> None:
        call = asyncio.ensure_future(service.ask("double", 1, group=1))
        call.cancel()
        await asyncio.sleep(0.05)
        assert handle.sent == []
        assert await asked(service, 2) == [4]

    asyncio.run(scenario())


def test_many_calls_do_not_wait_for_more() -> None:
    handle = Handle()
    service = Service(handle, gathers=True)  # type: ignore[arg-type]
    numbers = range(100, 100 + 3 * LARGEST_GROUP)
    assert asyncio.run(asked(service, *numbers)) == [2 * number for number in numbers]
    assert handle.sizes == [LARGEST_GROUP] * 3


def test_calls_of_other_methods_or_groups_are_sent_apart() -> None:
    handle = Handle()
    service = Service(handle, gathers=True)  # type: ignore[arg-type]

    async def scenario() -> None:
        calls = [service.ask("double", number, group=number % 2) for number in range(4)]
        calls.append(service.ask("failure", group=1))
        await asyncio.gather(*calls)

    asyncio.run(scenario())
    assert sorted(handle.sizes) == [1, 2, 2]


def test_calls_that_nobody_waits_for_any_more_end_and_those_of_others_go_on() -> None:
    handle = Handle()
    service = Service(handle, gathers=True)  # type: ignore[arg-type]

    async def scenario() -> None:
        waiting = [asyncio.ensure_future(service.ask("forever", group=1)) for _ in range(2)]
        await asyncio.sleep(0.05)
        waiting[0].cancel()
        await asyncio.sleep(0.05)
        assert not handle.replica.ended.is_set()
        waiting[1].cancel()
        await asyncio.wait_for(handle.replica.ended.wait(), 5)

    asyncio.run(scenario())


def test_what_is_sent_together_belongs_to_no_request() -> None:
    """Ray ends the calls that a request has made with it, by what it keeps in the context."""
    asker: contextvars.ContextVar[str] = contextvars.ContextVar("asker", default="nobody")
    handle = Handle()
    seen: list[str] = []

    class Noting(Replica):
        async def double(self, number: int) -> int:
            seen.append(asker.get())
            return 2 * number

    async def scenario() -> None:
        handle.replica = Noting()
        asker.set("a request")
        assert await asked(Service(handle, gathers=True), 1) == [2]  # type: ignore[arg-type]

    asyncio.run(scenario())
    assert seen == ["nobody"]


@pytest.mark.parametrize(
    ("switch", "group", "sent"), [("1", None, "double"), ("0", 1, "double"), ("1", 1, "answer_all")]
)
def test_calls_go_alone_unless_throughput_is_asked_for_and_they_have_a_group(
    monkeypatch: pytest.MonkeyPatch, switch: str, group: int | None, sent: str
) -> None:
    monkeypatch.setenv(THROUGHPUT, switch)
    handle = Handle()

    async def scenario() -> Any:
        return await Service(handle).ask("double", 4, group=group)  # type: ignore[arg-type]

    assert asyncio.run(scenario()) == 8
    assert handle.sent == [sent]
