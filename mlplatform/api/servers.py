"""What the prediction servers say that they hold."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from mlplatform.settings import Settings

TIMEOUT_S = 1.0


@dataclass(frozen=True)
class ServerStatus:
    """One server.

    Attributes:
        serves: experiment -> version, `None` where it has no pair.
        problem: why nothing is known about it; `None` if it answered.
    """

    address: str
    serves: dict[str, int | None] = field(default_factory=dict)
    problem: str | None = None


def ask_servers(settings: Settings) -> tuple[ServerStatus, ...]:
    """Ask every server of `MLPLATFORM_SERVING_URL` for its models; one that is away is no error."""
    return tuple(_ask(address.rstrip("/"), settings) for address in settings.serving_addresses)


def _ask(address: str, settings: Settings) -> ServerStatus:
    if not address.startswith(("http://", "https://")):
        return ServerStatus(address, problem="not an http address; see MLPLATFORM_SERVING_URL")
    token = settings.api_tokens[0] if settings.api_tokens else settings.admin_token
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{address}/models", headers=headers)  # noqa: S310 - the scheme is checked above
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - as above
            answer: Any = json.load(response)
        return ServerStatus(address, {model["name"]: model.get("version") for model in answer["models"]})
    except urllib.error.HTTPError as error:
        return ServerStatus(address, problem=f"answered {error.code}")
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        is_away = isinstance(reason, ConnectionRefusedError)
        return ServerStatus(address, problem="not running" if is_away else f"not reachable: {reason}")
    except (ValueError, KeyError, TypeError):
        return ServerStatus(address, problem="answered, but not as a prediction server does")
