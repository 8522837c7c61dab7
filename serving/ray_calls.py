"""Calls between deployments of Ray Serve: repeated when a replica died, and refused as clients know it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from serving.errors import ServingError

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    Handle = DeploymentHandle[Any]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# In seconds; together longer than it takes until no more calls are sent to a replica that died.
PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


class Service:
    """A deployment that is asked by every request.

    What looks like an attribute of Ray's handle is a handle made anew, and what travels is pickled in Python; of a call
    that takes a millisecond both are a good part. So a method's handle is made once, and Python's own pickle, written
    in C, takes what travels: values of classes that both sides import.

    Parameters:
        handle: of the deployment, for what is asked rarely.
    """

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self._methods: dict[str, Handle] = {}

    def ask(self, method: str, *arguments: Any) -> Awaitable[Any]:
        """Call a method of one replica."""
        if method not in self._methods:
            self._methods[method] = self.handle.options(
                method_name=method, request_serialization="pickle", response_serialization="pickle"
            )
        response: Awaitable[Any] = self._methods[method].remote(*arguments)
        return response


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
