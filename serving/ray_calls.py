"""Calls between deployments of Ray Serve: sent together where that is asked for, repeated when a replica died, and
refused as clients know it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import pickle
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from serving.batching import once_gathered
from serving.errors import ServingError

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    Handle = DeploymentHandle[Any]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# The switch of Ray Serve's for throughput in the place of all else.
THROUGHPUT = "RAY_SERVE_THROUGHPUT_OPTIMIZED"
# Most calls that are sent together.
LARGEST_GROUP = 64
# In seconds; together longer than it takes until no more calls are sent to a replica that died.
PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


class Call(NamedTuple):
    """A call of a deployment's method."""

    method: str
    arguments: tuple[Any, ...]


# A call, and who waits for it.
_Asked = tuple[Call, asyncio.Future[Any]]


class Raised(NamedTuple):
    """What a call raised, as it travels: what it returns may be an exception, too."""

    error: Exception


class Grouped:
    """Base of the deployments behind the ingress: answers calls one by one, or several that were sent together."""

    async def answer_all(self, calls: Sequence[Call]) -> list[Any]:
        """Return what every call returns, or raises."""
        return await asyncio.gather(*map(self._answer, calls))

    async def _answer(self, call: Call) -> Any:
        try:
            return await getattr(self, call.method)(*call.arguments)
        except Exception as error:
            logger.exception("%s failed", call.method)
            return Raised(_portable(error))


def _portable(error: Exception) -> Exception:
    """Return an exception that can travel, because one that cannot would keep all others of its group from it."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - written in this line
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class Service:
    """A deployment that is asked by every request.

    What looks like an attribute of Ray's handle is a handle made anew, and what travels is pickled in Python; of a call
    that takes a millisecond both are a good part. So a method's handle is made once, and Python's own pickle, written
    in C, takes what travels: values of classes that both sides import.

    Where throughput is asked for, calls that are made in the same moment are sent together: of a call between processes
    the sending is most of what it costs. What is sent together comes back together, so these are small calls of one
    method about one pair.

    Parameters:
        handle: of the deployment, for what is asked rarely.
        gathers: whether calls are sent together; default: as Ray Serve is told by `RAY_SERVE_THROUGHPUT_OPTIMIZED`.
    """

    def __init__(self, handle: Handle, *, gathers: bool | None = None) -> None:
        self.handle = handle
        self._gathers = os.environ.get(THROUGHPUT) == "1" if gathers is None else gathers
        self._methods: dict[str, Handle] = {}
        self._waiting: dict[tuple[str, Hashable], list[_Asked]] = {}

    def ask(self, method: str, *arguments: Any, group: Hashable = None) -> Awaitable[Any]:
        """Call a method of one replica.

        Parameters:
            group: which calls of the method it may be sent with, because they take as long; `None`: with none.
        """
        if not self._gathers or group is None:
            return self._called(method, *arguments)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        key = method, group
        waiting = self._waiting.setdefault(key, [])
        waiting.append((Call(method, arguments), future))
        if len(waiting) == 1:
            once_gathered(lambda: len(waiting), LARGEST_GROUP, lambda: self._send(key))
        return future

    def _called(self, method: str, *arguments: Any) -> Awaitable[Any]:
        if method not in self._methods:
            self._methods[method] = self.handle.options(
                method_name=method, request_serialization="pickle", response_serialization="pickle"
            )
        response: Awaitable[Any] = self._methods[method].remote(*arguments)
        return response

    def _send(self, key: tuple[str, Hashable]) -> None:
        # Nobody waits any more for what was cancelled meanwhile.
        asked = [each for each in self._waiting.pop(key) if not each[1].done()]
        for start in range(0, len(asked), LARGEST_GROUP):
            part = asked[start : start + LARGEST_GROUP]
            # In no request's context: Ray would have the end of that request end the calls of all others.
            task = asyncio.get_running_loop().create_task(self._answered(part), context=contextvars.Context())
            for _, future in part:
                future.add_done_callback(partial(_cancel_if_alone, task, part))

    async def _answered(self, asked: Sequence[_Asked]) -> None:
        """Have calls answered that are sent together; what fails as a whole, fails for each of them."""
        try:
            answers = await self._called("answer_all", [call for call, _ in asked])
        except Exception as error:
            answers = [Raised(error)] * len(asked)
        except asyncio.CancelledError:
            # Either nobody waits any more, or this process ends.
            answers = [Raised(unavailable())] * len(asked)
        for (_, future), answer in zip(asked, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Raised):
                future.set_exception(answer.error)
            else:
                future.set_result(answer)


def _cancel_if_alone(task: asyncio.Task[None], asked: Sequence[_Asked], _: asyncio.Future[Any]) -> None:
    """End calls that nobody waits for any more, as a call that is sent alone ends with its request."""
    if not task.done() and all(future.done() for _, future in asked):
        task.cancel()


async def repeated(call: Callable[[], Awaitable[T]]) -> T:
    """Return what a call returns, called again if a replica died with it.

    Parameters:
        call: changes nothing, so that a second one does no harm; makes new calls of replicas each time.

    Raises:
        ServingError: 503, if replicas are gone or have no place for the call.
    """
    from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

    for pause in (*PAUSES, None):
        try:
            return await call()
        except BackPressureError as error:
            raise overloaded() from error
        # What a replica computed is lost with it, so a call that was to read it ends as well.
        except (RayActorError, NodeDiedError, ObjectLostError, ReplicaUnavailableError) as error:
            if pause is None:
                raise unavailable() from error
            logger.warning("a replica is gone (%s); its call is repeated in %g s", type(error).__name__, pause)
            await asyncio.sleep(pause)
        except DeploymentUnavailableError as error:
            raise unavailable() from error
    raise AssertionError("the last attempt returns or raises")


def overloaded() -> ServingError:
    """Return the error of a request for which replicas have no place."""
    return _refused("overloaded", "all places of a service are taken")


def unavailable() -> ServingError:
    """Return the error of a request that needs replicas that are gone."""
    return _refused("service_unavailable", "replicas that the request needs are gone")


def _refused(code: str, found: str) -> ServingError:
    message = f"{found}; wait as long as Retry-After says and send the request again"
    return ServingError(503, code, message, headers={"retry-after": "1"})
