"""What the holder of a lock on the online store's server has in hand when it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlplatform.features.errors import FeatureStoreError


@dataclass(frozen=True)
class Fence:
    """A number that the server compares in the step in which it writes (a fencing token).

    Attributes:
        lock: name of the lock.
        key: where the server keeps the number of the lock's last holder.
        number: that of the holder who writes.
    """

    lock: str
    key: str
    number: int


def _always() -> None:
    """Confirm a lock that cannot lapse."""


@dataclass(frozen=True)
class Lease:
    """A held lock.

    Attributes:
        confirm: called before a write: raises `FeatureStoreError` if the lock lapsed, and prolongs it otherwise.
        fences: what the write has to show; none where a lock cannot lapse.
    """

    confirm: Callable[[], None] = _always
    fences: tuple[Fence, ...] = ()

    def within(self, outer: Lease) -> Lease:
        """Return the lease of whoever holds this lock and another one."""

        def confirm() -> None:
            outer.confirm()
            self.confirm()

        return Lease(confirm, (*outer.fences, *self.fences))


def lapsed(lock: str) -> FeatureStoreError:
    """Return the error of a holder who is one no more."""
    return FeatureStoreError(
        f"the lock {lock!r} on the online store lapsed while it was held; nothing more was written, repeat"
    )
