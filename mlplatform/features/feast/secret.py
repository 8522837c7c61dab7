"""Text that must not be shown: an address with a password, on its way into another library's configuration."""

from __future__ import annotations


class Secret(str):
    """Text whose `repr` hides it, and with it the `repr` of every dictionary or object that holds it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'**********'"
