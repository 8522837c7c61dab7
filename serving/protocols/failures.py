"""Errors in a protocol's own form: what a route raises is written as clients of that protocol read it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from typing_extensions import override

from serving.answers import to_json
from serving.bodies import JSON
from serving.errors import ServingError


def route_writing_errors(form: Callable[[int, ServingError], dict[str, Any]]) -> type[APIRoute]:
    """Return a class of routes whose errors have a form of their own.

    Parameters:
        form: from the HTTP status and the error to the body. A request that cannot be understood is 400 in all of these
            protocols, where the platform's own routes say 422.
    """

    class Route(APIRoute):
        @override
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()

            async def handle(request: Request) -> Response:
                try:
                    return await handler(request)
                except ServingError as error:
                    request.state.rejection = error.code
                    status = 400 if error.status == 422 else error.status
                    return Response(to_json(form(status, error)), status, error.headers, JSON)

            return handle

    return Route
