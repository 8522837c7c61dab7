"""Telling people that this server cannot load the pair that is in production."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mlplatform.settings import Settings
from serving.errors import ServingError

# What a server without any promotion, or one that is only starting, says; that is nobody's news.
_QUIET = frozenset({"no_production_pair"})


def tell_failed_load(settings: Settings, served: Callable[[], int | None]) -> Callable[[ServingError], None]:
    """Return what a keeper calls when a load failed; it returns at once.

    Parameters:
        served: returns the version that is still served; `None` if there is none.
    """

    def tell(error: ServingError) -> None:
        if error.code in _QUIET:
            return
        version = served()
        # A thread that does not keep the server from ending: nobody waits for a message.
        threading.Thread(target=_send, args=(settings, version, error.code), name="alert", daemon=True).start()

    return tell


def _send(settings: Settings, version: int | None, code: str) -> None:
    from mlplatform.alerts import send_alert, server_not_loaded

    send_alert(settings, server_not_loaded(settings, settings.experiment, version, code))
