"""The registry's aliases are told at once whatever the registry does, and one slow look is not asked for twice."""

from __future__ import annotations

import asyncio
import threading
import time

from serving.alias_look import FIRST_PATIENCE_S, AliasLook


class Registry:
    """One that can be made to hang; counts who asks."""

    def __init__(self) -> None:
        self.answers, self.asked, self.versions = threading.Event(), 0, {"production": 1}

    def read(self) -> dict[str, int]:
        self.asked += 1
        self.answers.wait(10)
        return dict(self.versions)


def test_a_registry_that_hangs_holds_nobody_up_and_is_asked_once() -> None:
    registry = Registry()

    async def look() -> None:
        aliases = AliasLook("tiny", registry.read)
        began = time.monotonic()
        assert await asyncio.gather(*(aliases.versions() for _ in range(20))) == [None] * 20
        assert time.monotonic() - began < FIRST_PATIENCE_S + 1
        assert registry.asked == 1
        registry.answers.set()
        assert await aliases.versions() == {"production": 1}
        registry.versions["production"] = 2
        assert await aliases.versions() == {"production": 2}
        registry.answers.clear()
        assert await aliases.versions() == {"production": 2}
        registry.answers.set()
        await aliases.close()

    asyncio.run(look())


def test_a_registry_that_cannot_be_read_leaves_what_was_known() -> None:
    answers: list[dict[str, int] | Exception] = [{"staging": 3}, ConnectionError("away"), {"staging": 4}]

    def read() -> dict[str, int]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def look() -> None:
        aliases = AliasLook("tiny", read)
        assert [await aliases.versions() for _ in range(3)] == [{"staging": 3}, {"staging": 3}, {"staging": 4}]
        await aliases.close()

    asyncio.run(look())
