"""The application, with an entrance of plain ASGI callables before the framework.

What every request passes costs least outside of the framework's own chain; and a request that is refused, or answered
on the short road, never gets into that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override


class Application(FastAPI):
    """An application that requests enter by what `enter_by` was given."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._entrance: ASGIApp = partial(FastAPI.__call__, self)

    def enter_by(self, wrap: Callable[[ASGIApp], ASGIApp]) -> None:
        """Put something before all there is so far; what is put last sees a request first."""
        self._entrance = wrap(self._entrance)

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._entrance(scope, receive, send)
