"""Ports that servers listen on: looked at before a server is built, opened, and with room for who comes."""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
from typing import Any

BACKLOG = 2048


def require_free(host: str, port: int, named_by: str = "--port") -> None:
    """Look whether the port can be had, before a server is built that would find out at the end of its start.

    Parameters:
        named_by: what another one can be named with.

    Raises:
        SystemExit: if another program listens there, or only the administrator may.
    """
    with contextlib.suppress(socket.gaierror):
        for family, kind, _, _, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            _try_to_bind(family, kind, address, f"{host}:{port}", named_by)


def listening(host: str, port: int) -> socket.socket:
    """Return a listening socket, which child processes can be given.

    Raises:
        SystemExit: if the address is in use, or is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SystemExit(f"cannot listen on {host}:{port}: {error.strerror}; name another --host or port") from error
    listener.setblocking(False)
    return listener


def listening_at(host: str, port: int) -> list[socket.socket]:
    """Return a listening socket for every address of a host that this machine has.

    Raises:
        SystemExit: if an address is in use, or the host is none of this machine's.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise SystemExit(f"cannot listen on {host}:{port}: {error.strerror}; name another --host") from error
    listeners: list[socket.socket] = []
    missing: SystemExit | None = None
    for address in dict.fromkeys(str(address[0]) for *_, address in found):
        try:
            listeners.append(listening(address, port))
        except SystemExit as refused:
            # As `localhost` has an address of IPv6 where the machine has none.
            if getattr(refused.__cause__, "errno", None) not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
            missing = refused
    if missing is not None and not listeners:
        raise missing
    return listeners


def allow_many_connections() -> None:
    """Let this process have as many descriptors as the system allows, and not as few as it proposes."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _try_to_bind(family: int, kind: int, address: Any, shown: str, named_by: str) -> None:
    try:
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
    except OSError as error:
        # Whatever else is wrong with one of several addresses may not keep the server from the others.
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise SystemExit(
                f"cannot listen on {shown}: {error.strerror}; name another port with {named_by}"
            ) from error
