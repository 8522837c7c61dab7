"""How often a client may ask: a token bucket for each, of which the processes of a server share the state.

The bucket is kept as the one number of the generic cell rate algorithm (ITU-T I.371): the moment at which it will be
full again. The fields of answers are those of the IETF's draft "RateLimit header fields for HTTP" (httpapi, 10).
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import math
import mmap
import os
import secrets
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import ServingError
from serving.security import is_open

# Buckets that are not full at once; beyond that, the one that is soonest full makes place.
SLOTS = 8192
_TRIED = 16
_SECRET_BYTES = 16
_SLOT = struct.Struct("16sd")
# A process that holds the lock holds it for microseconds, unless it was stopped in the middle.
_LOCK_TRIES = 200
# Addresses of IPv6 are handed out by networks: a client has as many as it likes.
_V6_NETWORK = 64


@dataclass(frozen=True)
class Verdict:
    """What a bucket says to one request.

    Attributes:
        remaining: requests that may follow at once.
        wait_s: seconds until the next one may; 0 if this one may.
        full_s: seconds until the bucket is full again.
    """

    remaining: int
    wait_s: float
    full_s: float


class Buckets:
    """The buckets of all clients, in a table of fixed size.

    Parameters:
        rate: requests per second that flow into a bucket.
        burst: requests that it holds.
        path: file of the table, which processes share; in memory of this process by default.
        clock: seconds of a clock that all processes share.
    """

    def __init__(
        self, rate: float, burst: int, path: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate, self.burst, self._clock = rate, burst, clock
        self._file = None if path is None else _table_file(path)
        size = _SECRET_BYTES + SLOTS * _SLOT.size
        self._table = mmap.mmap(-1 if self._file is None else self._file, size)
        if self._file is None:
            self._table[:_SECRET_BYTES] = secrets.token_bytes(_SECRET_BYTES)

    def take(self, client: bytes) -> Verdict:
        """Take one request out of a client's bucket, if there is one in it."""
        # Under a secret, so that nobody can choose a name that falls into another's place.
        name = hashlib.blake2b(client, digest_size=16, key=self._table[:_SECRET_BYTES]).digest()
        interval = 1 / self.rate
        with self._locked():
            now = self._clock()
            place, full_at = self._found(name, now)
            full_at = max(full_at, now)
            wait = full_at - now - (self.burst - 1) * interval
            # A rounding error is no reason to wait.
            if wait > 1e-9:
                return Verdict(0, _exact(wait), _exact(full_at - now))
            full_at += interval
            _SLOT.pack_into(self._table, place, name, full_at)
        return Verdict(int((self.burst * interval - (full_at - now)) / interval + 1e-6), 0.0, _exact(full_at - now))

    def _found(self, name: bytes, now: float) -> tuple[int, float]:
        """Return where a client's bucket is, or can be, and when it is full."""
        first = int.from_bytes(name[:8], "big")
        free: tuple[float, int] | None = None
        for step in range(_TRIED):
            place = _SECRET_BYTES + (first + step) % SLOTS * _SLOT.size
            owner, full_at = _SLOT.unpack_from(self._table, place)
            if owner == name:
                return place, full_at
            # A full bucket is like one that was never used.
            if free is None or full_at < free[0]:
                free = full_at, place
        assert free is not None
        return free[1], now

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self._file is None:
            yield
            return
        is_held = False
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(0)
            else:
                is_held = True
                break
        try:
            # Without the lock two processes may count one request instead of two; nobody waits for a stopped one.
            yield
        finally:
            if is_held:
                fcntl.lockf(self._file, fcntl.LOCK_UN)


def _exact(seconds: float) -> float:
    """Return seconds without the rounding errors of a difference, which whole seconds would be rounded up for."""
    return round(seconds, 6)


def _table_file(path: Path) -> int:
    """Return a descriptor of a table's file, which the first process makes."""
    whole = secrets.token_bytes(_SECRET_BYTES) + bytes(SLOTS * _SLOT.size)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_bytes(whole)
    try:
        # A link comes to be at once, whole, and only if there is none.
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


class RateLimitMiddleware:
    """Refuses requests of clients that ask too often, but for probes, metrics and what is for the operator.

    Parameters:
        by_token: whether a client is known by its token, which something before this has looked at, or by its address.
        refuse: answers a request that is refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        buckets: Buckets,
        *,
        by_token: bool,
        refuse: Callable[[Request, Exception], Awaitable[Response]],
    ) -> None:
        self.app = app
        self._buckets, self._by_token, self._refuse = buckets, by_token, refuse
        window = math.ceil(_exact(buckets.burst / buckets.rate))
        self._policy = b"ratelimit-policy", f'"requests";q={buckets.burst};w={window}'.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = self._client(scope) if scope["type"] == "http" and not is_open(scope["path"]) else None
        if client is None:
            await self.app(scope, receive, send)
            return
        verdict = self._buckets.take(client)
        limit = b"ratelimit", f'"requests";r={verdict.remaining};t={math.ceil(verdict.full_s)}'.encode()

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), self._policy, limit]
            await send(message)

        if not verdict.wait_s:
            await self.app(scope, receive, told)
            return
        response = await self._refuse(Request(scope, receive), self._error(verdict))
        await response(scope, receive, told)

    def _client(self, scope: Scope) -> bytes | None:
        if self._by_token:
            given: bytes = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            return given.partition(b" ")[2].strip()
        return network_of(scope["client"][0]) if scope.get("client") else None

    def _error(self, verdict: Verdict) -> ServingError:
        buckets, who = self._buckets, "token" if self._by_token else "address"
        return ServingError(
            429,
            "rate_limited",
            f"this {who} may send {buckets.rate:g} requests per second, {buckets.burst} at once; wait as long as "
            "Retry-After says and send the request again, or put several into one",
            headers={"retry-after": str(math.ceil(verdict.wait_s))},
        )


def network_of(address: str) -> bytes:
    """Return what an address is limited by: itself, or of IPv6 its network of 64 bits."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address.encode()
    if isinstance(parsed, ipaddress.IPv4Address):
        return parsed.packed
    if parsed.ipv4_mapped:
        return parsed.ipv4_mapped.packed
    return parsed.packed[: _V6_NETWORK // 8]
