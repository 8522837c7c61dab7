"""The notice to the prediction server that the production pair may have changed."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request

from mlplatform.settings import Settings

TIMEOUT_S = 30.0


def notify_server(settings: Settings) -> str:
    """Ask the server at `settings.serving_url` to reload, and return in one sentence how it went.

    Nothing is raised: training must not fail because nobody is serving.
    """
    url = f"{settings.serving_url}/admin/reload"
    if settings.admin_token is None:
        return "not told: MLPLATFORM_ADMIN_TOKEN is not set, so no server accepts a reload"
    if not url.startswith(("http://", "https://")):
        return f"not told: MLPLATFORM_SERVING_URL {settings.serving_url!r} is not an http address"
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
        url, method="POST", headers={"Authorization": f"Bearer {settings.admin_token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - as above
            body = response.read()
    except urllib.error.HTTPError as error:
        return f"{url} refused with status {error.code}"
    # A port may speak something else than HTTP, and a URL may be no URL.
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"{url} could not be reached: {error}"
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        return f"{url} answered, but not as a prediction server does"
    return f"{url} serves {answer.get('model')} version {answer.get('version')}"
