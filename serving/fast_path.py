"""The road of prediction requests past the web framework, which otherwise takes longer than the prediction.

The routes stay declared with the framework, for its page and for what is no prediction; requests for these paths are
handed to the same handlers without its routing, dependencies and exit stacks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.errors import ServingError

Handler = Callable[[Request, str | None], Awaitable[Response]]
# Answers what a handler raises.
Answer = Callable[[Request, Exception], Awaitable[Response]]

_MODELS = "/models/"


@dataclass(frozen=True)
class Answers:
    """What becomes of what handlers raise.

    Attributes:
        refuse: answers a `ServingError`.
        note_departure: answers a client that left.
        fail: answers anything else.
    """

    refuse: Answer
    note_departure: Answer
    fail: Answer


class Route:
    """What metrics ask a route for.

    Attributes:
        path: the template of its paths.
    """

    def __init__(self, path: str) -> None:
        self.path = path


class FastPath:
    """Answers POST requests for the paths of predictions itself and passes on all others.

    Parameters:
        app: takes the others.
        handlers: by path; each is also found at `/models/{name}` before its path, and then given the name.
    """

    def __init__(self, app: ASGIApp, handlers: Mapping[str, Handler], answers: Answers) -> None:
        self.app = app
        self._handlers = handlers
        self._answers = answers
        self._plain = {path: Route(path) for path in handlers}
        self._named = {path: Route(f"{_MODELS}{{name}}{path}") for path in handlers}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._found(scope) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None:
            await self.app(scope, receive, send)
            return
        handler, name, scope["route"] = found
        request = Request(scope, receive)
        try:
            response = await handler(request, name)
        except ServingError as error:
            response = await self._answers.refuse(request, error)
        except ClientDisconnect as error:
            response = await self._answers.note_departure(request, error)
        except Exception as error:
            response = await self._answers.fail(request, error)
        await response(scope, receive, send)

    def _found(self, scope: Scope) -> tuple[Handler, str | None, Any] | None:
        # Behind a proxy that mounts the server below a path of its own, that path stands before the route's.
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        if path in self._handlers:
            return self._handlers[path], None, self._plain[path]
        if not path.startswith(_MODELS):
            return None
        name, _, rest = path[len(_MODELS) :].partition("/")
        handler = self._handlers.get(f"/{rest}")
        return (handler, name, self._named[f"/{rest}"]) if handler and name else None
