"""A port's connections, taken by one process and answered by another.

In a flood a probe on the server's own port stands behind hundreds of connections and requests, each of which costs the
server's event loop more than the probe itself. So the process that answers probes (`serving.probe_process`) also stands
at the door of that port: it takes what comes, looks at the first bytes without taking them, answers probes, and hands
the sockets of all others over to the server (`SCM_RIGHTS`, unix(7)), which answers them as if it had taken them itself.
A connection is handed over once, so that requests on one that stays open cost nothing more.

While nobody stands at the door, the server takes its connections itself.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

LIVE, READY = "/health/live", "/health/ready"
# How a request begins that is answered at the door. One whose first packet ends before that is the server's to answer.
_PROBES = tuple(
    f"{method} {path}{end}".encode() for method in ("GET", "HEAD") for path in (LIVE, READY) for end in (" ", "?")
)
_LOOKED_AT = max(map(len, _PROBES))
# Connections that may stand at the door without having said anything, and that may wait for a server that is busy; the
# server has the silent ones that come beyond, and who would wait beyond is turned away.
_SILENT, _WAITING = 1024, 4096
# Taken, or handed over, in one turn of an event loop.
_AT_ONCE = 64
# After the system refused to open or pass one more descriptor, in seconds.
_PAUSE_S = 0.05

Protocols = Callable[[], asyncio.Protocol]


class Porter:
    """Takes connections, answers those that begin with a probe, and hands over the others.

    Parameters:
        listeners: sockets of the port, which are closed in the end.
        server: a `SOCK_SEQPACKET` socket to the server, closed in the end.
        answering: makes the protocol that answers a probe.
        silent_s: how long a connection may say nothing, in seconds.
    """

    def __init__(
        self, listeners: Sequence[socket.socket], server: socket.socket, answering: Protocols, silent_s: float
    ) -> None:
        self._listeners, self._server = listeners, server
        self._answering, self._silent_s = answering, silent_s
        self._silent: dict[socket.socket, asyncio.TimerHandle] = {}
        self._leaving: deque[socket.socket] = deque()
        self._answered: set[asyncio.Task[object]] = set()
        self._is_open = False

    def start(self) -> None:
        """Begin to take connections."""
        self._server.setblocking(False)
        self._is_open = True
        for listener in self._listeners:
            listener.setblocking(False)
            self._attend(listener)

    def stop(self) -> None:
        """Take no more; the server gets those that have said nothing yet, and then the end of the socket."""
        if not self._is_open:
            return
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)
            while self._take(listener):
                pass
            listener.close()
        for connection in list(self._silent):
            self._hand_over(connection)
        # What has been sent by then was all.
        self._is_open = False
        self._send()

    def _attend(self, listener: socket.socket) -> None:
        if self._is_open:
            asyncio.get_running_loop().add_reader(listener, self._take, listener)

    def _take(self, listener: socket.socket) -> bool:
        """Take what has come, and return whether there may be more."""
        loop = asyncio.get_running_loop()
        for _ in range(_AT_ONCE):
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return False
            except OSError as error:
                logger.warning("no connection can be taken for a moment: %s", error)
                loop.remove_reader(listener)
                loop.call_later(_PAUSE_S, self._attend, listener)
                return False
            connection.setblocking(False)
            self._silent[connection] = loop.call_later(self._silent_s, self._forget, connection)
            # Most have said what they want by now.
            self._look(connection)
            if connection not in self._silent:
                continue
            if len(self._silent) > _SILENT:
                self._hand_over(connection)
            else:
                loop.add_reader(connection, self._look, connection)
        return True

    def _look(self, connection: socket.socket) -> None:
        try:
            begin = connection.recv(_LOOKED_AT, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            begin = b""
        if not begin:
            self._forget(connection)
        elif begin.startswith(_PROBES):
            self._let_go(connection)
            loop = asyncio.get_running_loop()
            task = loop.create_task(loop.connect_accepted_socket(self._answering, connection))
            self._answered.add(task)
            task.add_done_callback(self._answered.discard)
        else:
            self._hand_over(connection)

    def _forget(self, connection: socket.socket) -> None:
        self._let_go(connection)
        connection.close()

    def _let_go(self, connection: socket.socket) -> None:
        timer = self._silent.pop(connection, None)
        if timer is not None:
            timer.cancel()
            asyncio.get_running_loop().remove_reader(connection)

    def _hand_over(self, connection: socket.socket) -> None:
        self._let_go(connection)
        if len(self._leaving) >= _WAITING:
            connection.close()
            return
        self._leaving.append(connection)
        if len(self._leaving) == 1:
            self._send()

    def _send(self) -> None:
        """Hand over all that wait for it, as far as the server takes them; it may be busy."""
        if self._server.fileno() < 0:
            return
        loop = asyncio.get_running_loop()
        loop.remove_writer(self._server)
        while self._leaving:
            try:
                socket.send_fds(self._server, [b"\0"], [self._leaving[0].fileno()])
            except BlockingIOError:
                loop.add_writer(self._server, self._send)
                return
            except (BrokenPipeError, ConnectionError):
                # The server is gone, and so will be this process.
                self._leaving.popleft().close()
            except OSError as error:
                logger.warning("no connection can be handed over for a moment: %s", error)
                loop.call_later(_PAUSE_S, self._send)
                return
            else:
                self._leaving.popleft().close()
        if not self._is_open:
            self._server.close()


class Reception:
    """The server's side: takes connections itself, or those that a porter hands over.

    Parameters:
        listeners: sockets of the port.
        protocol: makes the protocol that answers a connection.
        backlog: of the listeners.

    Attributes:
        listeners: the sockets of the port.
    """

    def __init__(self, listeners: Sequence[socket.socket], protocol: Protocols, backlog: int) -> None:
        self.listeners, self._protocol, self._backlog = listeners, protocol, backlog
        self._servers: list[asyncio.Server] = []
        self._arriving: set[asyncio.Task[object]] = set()
        self._porter: socket.socket | None = None
        self._is_over = asyncio.Event()

    async def open(self) -> None:
        """Take connections, until somebody else does.

        Raises:
            OSError: if the system has no descriptor left; none are taken then.
        """
        if self._servers:
            return
        loop = asyncio.get_running_loop()
        try:
            for each in self.listeners:
                own = each.dup()
                self._servers.append(await loop.create_server(self._protocol, sock=own, backlog=self._backlog))
        except OSError:
            self._leave()
            raise

    def leave_to(self, porter: socket.socket) -> None:
        """Take only what comes through a socket from now on, until that ends."""
        self._leave()
        porter.setblocking(False)
        self._porter = porter
        self._is_over.clear()
        asyncio.get_running_loop().add_reader(porter, self._take, porter)

    async def close(self, patience_s: float) -> None:
        """Take no more connections.

        Parameters:
            patience_s: how long to wait until a porter that was told to stop has handed over all it has, in seconds.
        """
        self._leave()
        for listener in self.listeners:
            listener.close()
        if self._porter is not None:
            try:
                async with asyncio.timeout(patience_s):
                    await self._is_over.wait()
            except TimeoutError:
                logger.warning("connections that have said nothing yet may be lost")
        if self._arriving:
            await asyncio.wait(self._arriving)

    def _leave(self) -> None:
        for server in self._servers:
            server.close()
        self._servers = []

    def _take(self, porter: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_AT_ONCE):
            try:
                message, passed, _, _ = socket.recv_fds(porter, 1, 1, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                message, passed = b"", []
            if not message:
                loop.remove_reader(porter)
                porter.close()
                # Another one may stand at the door by now.
                if self._porter is porter:
                    self._porter = None
                    self._is_over.set()
                return
            if not passed:
                logger.error("a connection is lost, because this process may have no more descriptors")
            for descriptor in passed:
                connection = socket.socket(fileno=descriptor)
                connection.setblocking(False)
                task = loop.create_task(loop.connect_accepted_socket(self._protocol, connection))
                self._arriving.add(task)
                task.add_done_callback(self._arriving.discard)
