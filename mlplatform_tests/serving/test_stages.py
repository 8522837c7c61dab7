"""Work is bounded: by places, by deadlines, and by clients that still wait; what hangs fails alone."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from serving import admission
from serving.admission import Admission
from serving.batching import Batcher
from serving.breaker import CircuitBreaker
from serving.errors import ServingError
from serving.health import StoreHealth
from serving.stages import Stage


async def never() -> Any:
    """A client that stays."""
    await asyncio.Event().wait()


def refused(error: BaseException | Any) -> tuple[int, str]:
    assert isinstance(error, ServingError), error
    return error.status, error.code


def test_a_stage_that_hangs_refuses_at_its_deadline_then_at_once_and_heals() -> None:
    released = threading.Event()

    async def scenario() -> None:
        stage = Stage("read", waiting=1, deadline_s=0.2, threads=2)
        hung = await asyncio.gather(*(stage.run(released.wait, 20) for _ in range(3)), return_exceptions=True)
        assert [refused(error) for error in hung] == [(503, "deadline_exceeded")] * 3
        # The third one never began, so its place is free; the two that hang keep theirs.
        assert stage.occupied == 2
        waiting = asyncio.create_task(stage.run(released.wait, 20))
        await asyncio.sleep(0)
        began = time.perf_counter()
        with pytest.raises(ServingError, match="all 3 places of the read are taken") as caught:
            await stage.run(released.wait, 20)
        assert time.perf_counter() - began < 0.1
        assert refused(caught.value) == (503, "overloaded")
        assert caught.value.headers == {"retry-after": "1"}
        released.set()
        assert await waiting is True
        while stage.occupied:
            await asyncio.sleep(0.01)
        assert await stage.run(lambda: "healed") == "healed"

    asyncio.run(scenario())


def test_work_of_a_request_that_was_cancelled_in_the_queue_is_not_done() -> None:
    done: list[int] = []
    released = threading.Event()

    async def scenario() -> None:
        stage = Stage("model", waiting=8, threads=1)
        first = asyncio.create_task(stage.run(released.wait, 20))
        second = asyncio.create_task(stage.run(done.append, 2))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.sleep(0)
        released.set()
        await first
        await stage.run(done.append, 3)

    asyncio.run(scenario())
    assert done == [3]


def test_beyond_the_limit_a_request_is_429_and_past_its_deadline_503() -> None:
    async def scenario() -> None:
        admission = Admission(2, deadline_s=0.2)
        slow = [asyncio.create_task(admission.admit(never, lambda: asyncio.sleep(5))) for _ in range(2)]
        await asyncio.sleep(0)
        for attempt in (admission.admit(never, lambda: asyncio.sleep(0)), admission.require_place()):
            with pytest.raises(ServingError) as caught:
                await attempt
            assert refused(caught.value) == (429, "too_many_requests")
            assert caught.value.headers == {"retry-after": "1"}
        ended = await asyncio.gather(*slow, return_exceptions=True)
        assert [refused(error) for error in ended] == [(503, "deadline_exceeded")] * 2
        assert admission.in_flight == 0

    asyncio.run(scenario())


def test_a_burst_is_refused_at_once_and_a_flood_is_slowed_down() -> None:
    async def scenario() -> None:
        admission = Admission(0, deadline_s=1)

        async def refusals(count: int) -> float:
            began = time.perf_counter()
            asked = await asyncio.gather(*(admission.require_place() for _ in range(count)), return_exceptions=True)
            assert {refused(error) for error in asked} == {(429, "too_many_requests")}
            return time.perf_counter() - began

        assert await refusals(90) < 0.1
        assert 0.2 < await refusals(90) < 1.5
        assert await refusals(400) < 1.5  # however many there are, none waits longer than a second

    asyncio.run(scenario())


def test_while_more_is_asked_for_than_the_limit_fewer_are_let_in_and_all_again_when_it_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "_CALM_S", 0.2)

    async def scenario() -> None:
        front = Admission(40, deadline_s=20)
        released = asyncio.Event()
        working = [asyncio.create_task(front.admit(never, released.wait)) for _ in range(40)]
        await asyncio.sleep(0)
        assert front.in_flight == 40  # a burst up to the limit is let in
        with pytest.raises(ServingError, match="works for 10 prediction requests already"):
            await front.require_place()
        released.set()
        await asyncio.gather(*working)
        released.clear()
        working = [asyncio.create_task(front.admit(never, released.wait)) for _ in range(12)]
        await asyncio.sleep(0.02)
        assert front.in_flight == 10  # one that does not end is not queued for
        released.set()
        ended = await asyncio.gather(*working, return_exceptions=True)
        assert sum(isinstance(error, ServingError) for error in ended) == 2
        await asyncio.sleep(0.3)
        assert front.places == 40

    asyncio.run(scenario())


def test_refusals_of_a_flood_do_not_end_in_one_moment() -> None:
    async def scenario() -> list[float]:
        front = Admission(0, deadline_s=1)

        async def refused_at() -> float:
            with pytest.raises(ServingError):
                await front.require_place()
            return time.perf_counter()

        return sorted(await asyncio.gather(*(refused_at() for _ in range(700))))

    ends = asyncio.run(scenario())
    late = ends[400:]
    assert late[-1] - late[0] > 0.25


def test_a_client_that_leaves_while_it_waits_is_not_worked_for() -> None:
    async def scenario() -> None:
        admission, was_cancelled = Admission(2, deadline_s=20), asyncio.Event()

        async def leaves() -> dict[str, str]:
            await asyncio.sleep(0.1)
            return {"type": "http.disconnect"}

        async def work() -> None:
            try:
                await asyncio.sleep(20)
            except asyncio.CancelledError:
                was_cancelled.set()
                raise

        with pytest.raises(ClientDisconnect):
            await admission.admit(leaves, work)
        assert was_cancelled.is_set()
        assert admission.in_flight == 0
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    asyncio.run(scenario())


def test_the_breaker_opens_after_failures_in_a_row_and_closes_when_one_succeeds() -> None:
    now, asked = [0.0], [0]

    async def scenario() -> None:
        breaker = CircuitBreaker(failures=3, pause_s=1, longest_s=4, clock=lambda: now[0])

        async def ask(outcome: ServingError | str) -> str:
            async def work() -> str:
                asked[0] += 1
                if isinstance(outcome, ServingError):
                    raise outcome
                return outcome

            return await breaker.call(work)

        away, unknown = ServingError(503, "away", "the store is away"), ServingError(404, "unknown", "no such entity")
        for outcome in (away, away, unknown, away, away):
            with pytest.raises(ServingError):
                await ask(outcome)
        assert not breaker.is_open  # a refusal that the store itself gave says that it is there
        with pytest.raises(ServingError):
            await ask(away)
        assert breaker.is_open
        before = asked[0]
        with pytest.raises(ServingError, match="the store is away") as caught:
            await ask("well")
        assert asked[0] == before
        assert int(caught.value.headers["retry-after"]) >= 1
        now[0] = 2.0
        with pytest.raises(ServingError):
            await ask(away)
        assert breaker.is_open  # one failure is enough while it tries again
        now[0] = 6.0
        assert await ask("well") == "well"
        assert not breaker.is_open

    asyncio.run(scenario())


def test_questions_that_wait_are_answered_together_and_a_bad_one_alone() -> None:
    batches: list[list[int]] = []
    released = threading.Event()

    def answer(questions: list[int]) -> list[int | Exception]:
        batches.append(list(questions))
        released.wait(20)
        return [ValueError("odd") if question == 3 else question * 10 for question in questions]

    async def scenario() -> list[Any]:
        batcher: Batcher[int, int] = Batcher(answer, 4)  # type: ignore[arg-type]
        asking = [asyncio.create_task(batcher.ask(0))]
        await asyncio.sleep(0.05)
        asking += [asyncio.create_task(batcher.ask(number)) for number in range(1, 7)]
        await asyncio.sleep(0.05)
        asking[2].cancel()
        released.set()
        return await asyncio.gather(*asking, return_exceptions=True)

    answers = asyncio.run(scenario())
    assert batches == [[0], [1, 3, 4, 5], [6]]
    assert [answers[number] for number in (0, 1, 4, 5, 6)] == [0, 10, 40, 50, 60]
    assert isinstance(answers[2], asyncio.CancelledError)
    assert isinstance(answers[3], ValueError)


def test_who_asks_in_one_turn_shares_a_batch_and_who_was_answered_and_asks_again_the_next() -> None:
    batches: list[list[int]] = []

    def answer(questions: list[int]) -> list[int | Exception]:
        batches.append(list(questions))
        return list(questions)

    async def ask_twice(batcher: Batcher[int, int], number: int) -> None:
        await batcher.ask(number)
        # What a request does between two turns of the event loop, as reading what follows on its connection.
        await asyncio.sleep(0)
        await batcher.ask(number + 10)

    async def scenario() -> None:
        batcher: Batcher[int, int] = Batcher(answer, 64)  # type: ignore[arg-type]
        await asyncio.gather(*(ask_twice(batcher, number) for number in range(4)))

    asyncio.run(scenario())
    assert batches == [[0, 1, 2, 3], [10, 11, 12, 13]]


def test_company_that_never_ends_is_not_waited_for() -> None:
    batches: list[list[int]] = []

    def answer(questions: list[int]) -> list[int | Exception]:
        batches.append(list(questions))
        return list(questions)

    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        batcher: Batcher[int, int] = Batcher(answer, 10**9)  # type: ignore[arg-type]
        began = loop.time()
        asking: list[asyncio.Task[int]] = []
        while len(batches) < 3 and loop.time() < began + 20:
            asking.append(asyncio.create_task(batcher.ask(len(asking))))
            await asyncio.sleep(0)
        took = loop.time() - began
        await asyncio.gather(*asking)
        return took

    assert asyncio.run(scenario()) < 10
    # In each turn one came, and none of the turns was quiet.
    assert len(batches[1]) > 2


def test_a_batch_that_fails_as_a_whole_fails_its_questions_and_no_others() -> None:
    def answer(questions: list[int]) -> list[int | Exception]:
        if 1 in questions:
            raise RuntimeError("broken")
        return list(questions)

    async def scenario() -> list[Any]:
        batcher: Batcher[int, int] = Batcher(answer, 1)  # type: ignore[arg-type]
        return await asyncio.gather(*(batcher.ask(number) for number in range(3)), return_exceptions=True)

    first, second, third = asyncio.run(scenario())
    assert (first, third) == (0, 2)
    assert isinstance(second, RuntimeError)


def test_a_batch_that_gives_another_number_of_answers_fails_its_questions_and_no_others() -> None:
    def answer(questions: list[int]) -> list[int]:
        return [] if 1 in questions else list(questions)

    async def scenario() -> list[Any]:
        batcher: Batcher[int, int] = Batcher(answer, 1, name="read of the store")  # type: ignore[arg-type]
        asked = (batcher.ask(number) for number in range(3))
        return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)

    first, second, third = asyncio.run(scenario())
    assert (first, third) == (0, 2)
    assert str(second) == "the read of the store gave 0 answers to 1 questions"


def test_a_probe_never_waits_for_a_store_that_hangs() -> None:
    now = [0.0]

    async def scenario() -> None:
        answers = asyncio.Event()

        async def probe() -> str | None:
            await answers.wait()
            return None

        health = StoreHealth(probe, lambda: now[0])
        assert await health.problem() is None  # nothing is known against it yet
        now[0] = 0.6
        assert "has not answered for 0.6 s" in str(await health.problem())
        answers.set()
        assert await health.problem() is None

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_store_that_was_well_a_moment_ago_costs_a_probe_no_time() -> None:
    words, asked, now = [None, "down", None], [0], [0.0]

    async def probe() -> str | None:
        asked[0] += 1
        await asyncio.sleep(0)
        return words[asked[0] - 1]

    async def scenario() -> None:
        health = StoreHealth(probe, lambda: now[0])
        assert await health.problem() is None  # it was waited for
        for moment, found, times in (
            (0.2, None, 1),  # from memory
            (0.5, None, 2),  # from memory, and asked again behind it
            (0.6, None, 3),  # what is wrong is looked at again at once, so that a store that is back is told at once
        ):
            now[0] = moment
            assert await health.problem() is found
            await asyncio.sleep(0.01)
            assert asked[0] == times

    asyncio.run(scenario())
