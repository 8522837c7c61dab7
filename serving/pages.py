"""The documentation pages: served whole from here, with requests that the served pairs answer as examples."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from serving.backend import Served
from serving.bodies import JSON
from serving.examples import entities_request, rows_request
from serving.openapi import with_errors
from serving.protocols import PROTOCOL_TAGS, protocol_requests
from serving.service import PredictionService

ASSETS = "/docs/assets"
# What a page's scripts would fetch from elsewhere (a logo, a font), a browser leaves out.
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
    )
)


def add_pages(app: FastAPI, service: PredictionService) -> None:
    """Give an application `/docs` and `/redoc`, and the description that they read its examples.

    Parameters:
        app: with all of its routes.
    """
    app.mount(ASSETS, StaticFiles(directory=str(files("fastapi_offline") / "static")), name="documentation")
    title, describe = app.title, app.openapi

    def described() -> dict[str, Any]:
        """Return the OpenAPI description with examples of what is served now."""
        served = {name: model.backend.served() for name, model in service.models.items()}
        whole = with_errors(describe(), PROTOCOL_TAGS)
        return with_examples(whole, {name: now for name, now in served.items() if now}, service.default.name)

    # FastAPI's own way of changing the description, which it makes at the first request and keeps.
    app.openapi = described  # type: ignore[method-assign]

    @app.get("/docs", include_in_schema=False)
    async def swagger(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        page = get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=title,
            swagger_js_url=f"{root}{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{root}{ASSETS}/favicon.png",
        )
        return _without_others(page)

    @app.get("/redoc", include_in_schema=False)
    async def redoc(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        page = get_redoc_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=title,
            redoc_js_url=f"{root}{ASSETS}/redoc.standalone.js",
            redoc_favicon_url=f"{root}{ASSETS}/favicon.png",
            with_google_fonts=False,
        )
        return _without_others(page)


def with_examples(description: Mapping[str, Any], served: Mapping[str, Served], default: str) -> dict[str, Any]:
    """Return an OpenAPI description whose requests have the served pairs' examples.

    Parameters:
        served: what answers, by model; routes with a model's name in their path get an example of each.
        default: the model that answers the other routes.
    """
    described = copy.deepcopy(dict(description))
    for name, now in served.items():
        requests = {
            "/predict": rows_request(now),
            "/predict/feast/batch": entities_request(now),
            "/models/{name}/predict": rows_request(now),
            "/models/{name}/predict/feast/batch": entities_request(now),
            **protocol_requests(name, now),
        }
        for path, example in requests.items():
            if example is None or not (name == default or "{name}" in path):
                continue
            content = described["paths"][path]["post"]["requestBody"]["content"][JSON]
            content["schema"].pop("examples", None)
            content.setdefault("examples", {})[name] = {"value": example}
    return described


def _without_others(page: HTMLResponse) -> HTMLResponse:
    page.headers["content-security-policy"] = _POLICY
    return page
