"""Micro-batching: requests that wait at the same time are answered by one transform and one predict.

A question that finds nothing to do is answered as soon as the event loop has turned once; while one batch is computed
the next one gathers. It also waits until those that were just answered have asked again, which takes them less than a
call of the model costs: for as long as each turn of the event loop brings someone, and at most for a moment. That is
the adaptive delay of Crankshaw et al., "Clipper" (NSDI 2017), without a clock to tune.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Generic, TypeVar

import numpy as np

from mlplatform.datamodule import Panel
from mlplatform.registry import Answers, Forecaster
from serving.errors import overloaded

Q = TypeVar("Q")
A = TypeVar("A")

# Bits may depend on the number of rows in a matrix product, so every size up to the largest kind of batch is tried.
_SIZES_TRIED = (2, 3, 5, 8, 16, 33)

# Turns of the event loop, one after another, that bring no question until nobody more is waited for; and the longest
# wait, which matters where turns are long because more is asked for than can be answered.
_QUIET_TURNS, _LONGEST_WAIT_S = 2, 0.002


class Batcher(Generic[Q, A]):
    """Answers questions in the order in which they come, several at a time, in one thread.

    Parameters:
        answer: blocking; returns for every question its answer, or the exception to raise.
        limit: most questions in one batch.
        waited: told of every question how long it waited for its batch, in seconds.
        places: questions that may wait; what comes beyond is refused. `None` leaves that to who asks.
        name: what errors call the stage.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Sequence[A | Exception]],
        limit: int,
        waited: Callable[[Q, float], None] = lambda _, __: None,
        places: int | None = None,
        name: str = "model",
    ) -> None:
        self._answer, self._limit, self._waited, self._places, self._name = answer, limit, waited, places, name
        self._waiting: deque[tuple[Q, asyncio.Future[A], float]] = deque()
        # A batch is computed or gathers.
        self._is_running = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"batch-{name.replace(' ', '-')}")

    @property
    def depth(self) -> int:
        """Questions that wait for the next batch."""
        return len(self._waiting)

    async def ask(self, question: Q) -> A:
        """Return the answer; a question whose asker is cancelled while it waits is dropped.

        Raises:
            ServingError: 503 if there is no place to wait.
        """
        if self._places is not None and len(self._waiting) >= self._places:
            # Behind a batch that hangs, those stay that nobody waits for any more.
            self._waiting = deque(item for item in self._waiting if not item[1].done())
            if len(self._waiting) >= self._places:
                raise overloaded(self._name, self._places)
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future, time.perf_counter()))
        if not self._is_running:
            self._is_running = True
            # Behind those who ask in this turn of the event loop.
            asyncio.get_running_loop().call_soon(self._start)
        return await future

    def close(self) -> None:
        """Let the thread end when it is done."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        batch: list[tuple[Q, asyncio.Future[A]]] = []
        now = time.perf_counter()
        while self._waiting and len(batch) < self._limit:
            question, future, asked = self._waiting.popleft()
            if not future.done():
                batch.append((question, future))
                self._waited(question, now - asked)
        self._is_running = bool(batch)
        if not batch:
            return
        loop = asyncio.get_running_loop()
        try:
            done = self._thread.submit(self._answer, [question for question, _ in batch])
        except RuntimeError as closed:
            self._is_running = False
            for _, future in batch:
                future.set_exception(closed)
            return
        done.add_done_callback(lambda ended: loop.call_soon_threadsafe(self._finish, batch, ended))

    def _finish(self, batch: Sequence[tuple[Q, asyncio.Future[A]]], ended: Future[Sequence[A | Exception]]) -> None:
        failure = ended.exception()
        answers: Sequence[A | BaseException] = [] if failure is not None else ended.result()
        if failure is None and len(answers) != len(batch):
            # Whose answer is whose cannot be told; whoever waits behind them has nothing to do with it.
            failure = RuntimeError(f"the {self._name} gave {len(answers)} answers to {len(batch)} questions")
        if failure is not None:
            answers = [failure] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        # After the answers have been written: to begin before would take Python's lock from those who write them.
        once_gathered(lambda: self.depth, self._limit, self._start)


def once_gathered(depth: Callable[[], int], limit: int, start: Callable[[], None]) -> None:
    """Call `start` in a later turn of the event loop, once nobody more is coming.

    Parameters:
        depth: how many have come.
        limit: how many are enough.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + _LONGEST_WAIT_S

    def look(seen: int, quiet: int) -> None:
        """Look how many have come since the last turn, for how many turns nobody has; the first is never quiet."""
        now = depth()
        quiet = quiet + 1 if now == seen else 0
        if quiet >= _QUIET_TURNS or now >= limit or loop.time() >= until:
            start()
        else:
            loop.call_soon(look, now, quiet)

    loop.call_soon(look, -1, 0)


def answered_in_groups(
    questions: Sequence[Q],
    key: Callable[[Q], Hashable],
    together: Callable[[Sequence[Q]], Sequence[A | Exception] | None],
    alone: Callable[[Q], A],
) -> list[A | Exception]:
    """Return the answer of every question, or what keeps it from having one.

    Parameters:
        key: tells which questions may be answered together.
        together: answers questions of one key; `None` if each has to be looked at alone, so that the one to
            blame says what is wrong and the others have their answers.
        alone: answers one; raises what keeps it from having an answer.
    """
    answers: dict[int, A | Exception] = {}
    groups: dict[Hashable, list[int]] = {}
    for place, question in enumerate(questions):
        groups.setdefault(key(question), []).append(place)
    for places in groups.values():
        group = [questions[place] for place in places]
        found = together(group)
        if found is None:
            found = [_tried(alone, question) for question in group]
        answers.update(zip(places, found, strict=True))
    return [answers[place] for place in range(len(questions))]


def _tried(alone: Callable[[Q], A], question: Q) -> A | Exception:
    try:
        return alone(question)
    except Exception as error:
        return error


@dataclass(frozen=True)
class Slice:
    """Where the entities of one panel stand in a stacked one."""

    start: int
    stop: int

    def of(self, answers: Answers) -> Answers:
        """Return the answers of this panel."""
        return answers.map(lambda values: values[self.start : self.stop])


def stacked(panels: Sequence[Panel]) -> tuple[Panel, list[Slice]]:
    """Return one panel with the entities of all, in order, and where those of each stand."""
    if len(panels) == 1:
        return panels[0], [Slice(0, len(panels[0].entity_ids))]
    ids = [panel.entity_ids for panel in panels]
    if len({array.dtype for array in ids}) > 1:
        ids = [array.astype(object) for array in ids]
    lengths = np.concatenate([np.diff(panel.offsets) for panel in panels])
    panel = Panel(
        columns={name: np.concatenate([panel.columns[name] for panel in panels]) for name in panels[0].columns},
        timestamps=np.concatenate([panel.timestamps for panel in panels]),
        entity_ids=np.concatenate(ids),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )
    return panel, slices_of([len(array) for array in ids])


def slices_of(counts: Sequence[int]) -> list[Slice]:
    """Return where parts stand of which each has so many entities, one after the other."""
    ends = [0, *accumulate(counts)]
    return [Slice(start, stop) for start, stop in pairwise(ends)]


def is_batchable(forecaster: Forecaster, example: Panel) -> bool:
    """Return whether entities get the same bits in company as alone, tried on an example in batches of many sizes."""
    alone = [forecaster.answer(one) for one in _entities(example)]
    singles = _entities(example)
    for size in _SIZES_TRIED:
        chosen = [position % len(singles) for position in range(size)]
        panel, slices = stacked([singles[position] for position in chosen])
        together = forecaster.answer(panel)
        if not all(_same(part.of(together), alone[position]) for part, position in zip(slices, chosen, strict=True)):
            return False
    return True


def _entities(panel: Panel) -> list[Panel]:
    """Return a panel for every entity."""
    return [panel.take(_rows(panel, entity)) for entity in range(len(panel.entity_ids))]


def _rows(panel: Panel, entity: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    rows = np.zeros(panel.rows, dtype=bool)
    rows[panel.offsets[entity] : panel.offsets[entity + 1]] = True
    return rows


def _same(found: Answers, expected: Answers) -> bool:
    return found.coverages == expected.coverages and all(
        a.tobytes() == b.tobytes() for a, b in zip(found.arrays, expected.arrays, strict=True)
    )
