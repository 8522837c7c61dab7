"""The notice to the prediction servers that the production pair may have changed."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass

from mlplatform.settings import Settings

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Notice:
    """How telling one server went.

    Attributes:
        version: the version the server says it serves; None if it did not say.
        outcome: one sentence for people.
    """

    outcome: str
    version: int | None = None


def notify_servers(settings: Settings) -> list[Notice]:
    """Ask every server in `settings.serving_url`, addresses separated by commas, to reload.

    Nothing is raised: training must not fail because nobody is serving.
    """
    if settings.admin_token is None:
        return [Notice("not told: MLPLATFORM_ADMIN_TOKEN is not set, so no server accepts a reload")]
    return [_notify(address, settings.admin_token) for address in settings.serving_addresses]


def _notify(address: str, token: str) -> Notice:
    url = f"{address.rstrip('/')}/admin/reload"
    if not address.startswith(("http://", "https://")):
        return Notice(f"not told: {address!r} in MLPLATFORM_SERVING_URL is not an http address")
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
        url, method="POST", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - as above
            body = response.read()
    except urllib.error.HTTPError as error:
        return Notice(f"{url} refused with status {error.code}{_reason(error)}")
    # A port may speak something else than HTTP, and a URL may be no URL.
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Notice(f"{url} could not be reached: {error}")
    return _answer(url, body)


def _reason(error: urllib.error.HTTPError) -> str:
    """Return what a prediction server gives as the reason of a refusal."""
    try:
        return f": {json.loads(error.read())['error']['message']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _answer(url: str, body: bytes) -> Notice:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("version"), int):
        return Notice(f"{url} answered, but not as a prediction server does")
    return Notice(f"{url} serves {answer.get('experiment')} version {answer['version']}", answer["version"])
