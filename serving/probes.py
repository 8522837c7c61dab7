"""Probes, answered by a small process beside the server: at the door of the server's port, and on a port of their own.

New connections wait in one queue, requests in another, and in the server's own event loop a probe stands at the end of
both: four hundred clients that come in one moment are four hundred connections before it. In this process it meets
what comes to the door, which costs little, or on the port for probes alone only other probes. A thread would not do: it
would wait for Python's lock like all that computes in the server.

What is ready is decided where predictions are answered. Asked by that process (`serving.probe_process`), the server
has a few milliseconds for its word; of an event loop that is busy the word before counts, and one that says nothing for
long is neither ready nor live.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys

from fastapi import FastAPI

from serving.answers import to_json
from serving.bodies import JSON, PROBLEM
from serving.entrance import ask_inside
from serving.errors import ServingError
from serving.handover import LIVE, READY, Reception
from serving.probe_process import ALIVE, AT_THE_DOOR, SECONDS, Saying, Sayings
from serving.security import SECURITY_HEADERS

logger = logging.getLogger(__name__)

HUNG_S = 30.0
# Between the end of a process that should have gone on and the start of the next one.
_PAUSE_S = 0.5
_LONGEST_STOP_S = 4.0
# A process that has said nothing for twice as long hangs. In two halves, because after a moment in which this event
# loop did nothing, the first may seem over when there is something to read.
_SILENT_S = 5.0
# What stands at the door when the server ends is handed over within this time.
_LAST_HANDOVER_S = 1.0


class Probes:
    """Has `/health/live` and `/health/ready` of an application answered by another process, which it keeps running.

    Parameters:
        app: the application; its routes are asked in the event loop that `start` is called in.
        listener: the listening socket of a port for probes alone, if there is one.
        head_deadline_s: as in `http_protocol`.
        hung_s: how long the event loop may say nothing until it counts as hanging, in seconds.
        reception: where the connections of the server's own port come in, open when `start` is called; the process
            takes them as long as it lives. `None` leaves that port, and the probes on it, to the server.
    """

    def __init__(
        self,
        app: FastAPI,
        listener: socket.socket | None,
        head_deadline_s: float,
        hung_s: float = HUNG_S,
        reception: Reception | None = None,
    ) -> None:
        self._app, self._listener, self._reception = app, listener, reception
        self._sayings = _sayings(hung_s, head_deadline_s)
        self._keeping: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._is_at_the_door = self._takes_no_more = False

    @property
    def pid(self) -> int | None:
        """The process that answers; `None` before there is one."""
        return None if self._process is None else self._process.pid

    @property
    def is_at_the_door(self) -> bool:
        """Whether that process takes the connections of the server's own port."""
        return self._is_at_the_door

    def start(self) -> None:
        """Begin to have probes answered; returns at once."""
        self._keeping = asyncio.create_task(self._keep())
        if self._listener is not None:
            logger.info("probes are answered on port %d too", self._listener.getsockname()[1])

    async def take_no_more(self) -> None:
        """Close the server's own port; connections that stand at its door are the server's."""
        if self._reception is None:
            return
        self._takes_no_more = True
        if self._is_at_the_door and self._writer is not None:
            self._writer.write(_line(None))
        elif self._process is not None:
            # It is about to stand at a door that is closed now.
            self._process.kill()
        await self._reception.close(_LAST_HANDOVER_S)

    async def stop(self) -> None:
        """Have no more probes answered."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        if self._process is not None:
            await asyncio.to_thread(_ended, self._process)

    async def _keep(self) -> None:
        while True:
            try:
                channel, handover = self._begin()
            except OSError as error:
                logger.error("no process answers probes: %s; trying again", error)
            else:
                await self._tell(channel, handover)
                await self._open()
                assert self._process is not None
                status = await asyncio.to_thread(_ended, self._process)
                logger.warning("the process that answers probes ended with status %s; another one starts", status)
            await asyncio.sleep(_PAUSE_S)

    async def _open(self) -> None:
        """Have the server take its connections itself, now that nobody else does."""
        while self._reception is not None and not self._takes_no_more:
            try:
                await self._reception.open()
            except OSError as error:
                logger.error("nobody takes connections: %s; trying again", error)
                await asyncio.sleep(_PAUSE_S)
            else:
                return

    def _begin(self) -> tuple[socket.socket, socket.socket]:
        """Start the process and return the sockets to it: for words, and for connections."""
        own, other = socket.socketpair()
        receiving, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        passed = [other.fileno(), sending.fileno()]
        command = [sys.executable, "-m", "serving.probe_process", "--channel", str(passed[0])]
        if self._listener is not None:
            passed.append(self._listener.fileno())
            command += ["--listener", str(passed[-1])]
        if self._reception is not None and not self._takes_no_more:
            doors = [each.fileno() for each in self._reception.listeners]
            command += ["--handover", str(sending.fileno()), "--doors", *map(str, doors)]
            passed += doors
        try:
            # A session of its own: Ctrl-C is for the server, which says what is ready until it has ended.
            self._process = subprocess.Popen(command, pass_fds=passed, start_new_session=True)  # noqa: S603 - this program
        except OSError:
            own.close()
            receiving.close()
            raise
        finally:
            other.close()
            sending.close()
        return own, receiving

    async def _tell(self, channel: socket.socket, handover: socket.socket) -> None:
        """Give the word whenever the process asks for it, until that is gone."""
        reader, self._writer = await asyncio.open_connection(sock=channel)
        try:
            self._writer.write(_line(self._sayings) + _line(await self._word()))
            while said := await self._said(reader):
                if said == AT_THE_DOOR and self._reception is not None and not self._takes_no_more:
                    self._reception.leave_to(handover)
                    self._is_at_the_door = True
                elif said not in (ALIVE, AT_THE_DOOR):
                    self._writer.write(_line(await self._word()))
                    await self._writer.drain()
        except ConnectionError:
            # Gone between two lines.
            return
        finally:
            self._writer.close()
            self._writer = None
            if not self._is_at_the_door:
                handover.close()
            self._is_at_the_door = False

    async def _said(self, reader: asyncio.StreamReader) -> bytes:
        """Return the next line; none from a process that is gone, or hangs and is killed."""
        for _ in range(2):
            try:
                async with asyncio.timeout(_SILENT_S):
                    return await reader.readline()
            except TimeoutError:
                continue
        logger.error("the process that answers probes says nothing and is killed")
        assert self._process is not None
        self._process.kill()
        return b""

    async def _word(self) -> Saying:
        try:
            found = await ask_inside(self._app, READY)
        except Exception:
            logger.exception("the server cannot say whether it is ready")
            return _refusal(ServingError(503, "not_ready", "the server cannot say whether it is ready; see its log"))
        return _saying(found.status, found.body, found.media_type)


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Return with which status a process ended that has lost its server, or has no more to say."""
    try:
        return process.wait(_LONGEST_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _line(told: Saying | Sayings | None) -> bytes:
    return json.dumps(told).encode() + b"\n"


def _sayings(hung_s: float, head_deadline_s: float) -> Sayings:
    silent = f"the event loop has been busy for {SECONDS} s"
    return Sayings(
        live=_saying(200, to_json({"status": "live"}), JSON),
        hung=_refusal(ServingError(503, "not_ready", silent)),
        unknown=_refusal(ServingError(404, "no_such_route", f"only GET {LIVE} and {READY} are answered on this port")),
        hung_s=hung_s,
        head_deadline_s=head_deadline_s,
    )


def _refusal(error: ServingError) -> Saying:
    return _saying(error.status, to_json(error.body()), PROBLEM)


def _saying(status: int, body: bytes, media_type: str) -> Saying:
    fixed = [(name.decode(), value.decode()) for name, value in SECURITY_HEADERS]
    return Saying(status, [("content-type", media_type), *fixed], body.decode())
