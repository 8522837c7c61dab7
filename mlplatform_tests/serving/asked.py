"""Requests, good, bad and absurd, whose answers must not depend on the server; and what is compared of the answers."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from mlplatform_tests.serving.conftest import UNITS, Platform

ENTITIES = "/predict/feast/batch"
JSON = {"content-type": "application/json"}
# Of the connection and the moment, not of the answer.
_PASSING = {"date", "server", "x-request-id", "connection", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class Asked:
    """One request."""

    path: str
    content: bytes = b""
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON))

    @classmethod
    def of(cls, path: str, body: Any, **headers: str) -> Asked:
        """Return a request with a JSON body."""
        return cls(path, json.dumps(body).encode(), headers={**JSON, **headers})

    @classmethod
    def get(cls, path: str, method: str = "GET") -> Asked:
        """Return a request without a body."""
        return cls(path, method=method, headers={})


def table(platform: Platform) -> list[Asked]:
    """Return the requests; the rows are those of `tiny_forecast`."""
    return [*answered(platform), *_refused(platform), *_absurd(platform), *_others()]


def answered(platform: Platform) -> list[Asked]:
    gap, own = platform.rows(), [dict(row, unit=row["entity_id"]) for row in platform.rows()]
    gap[2]["oil"] = None
    gap[3]["cooling"] = "nitrogen"
    for row in own:
        del row["entity_id"]
    rows = json.dumps({"rows": platform.rows()}).encode()
    ids = {"name": "entity_id", "shape": [2], "datatype": "INT64", "data": [3, 1]}
    return [
        Asked.of(ENTITIES, {"entities": list(UNITS)}),
        Asked.of(ENTITIES, {"entities": [2]}),
        Asked.of(ENTITIES, {"entities": [1, 99]}),
        Asked.of(ENTITIES, {"entities": [3], "time_point": "2026-01-04T00:00:00Z"}),
        Asked.of(ENTITIES, {"entities": [1], "version": 2}),
        Asked.of(ENTITIES, {"entities": [1, 3], "explain": True}),
        Asked.of("/predict", {"rows": platform.rows()}),
        Asked.of("/predict", {"rows": [*platform.rows(20, 3), *platform.rows(30, 1)]}),
        Asked.of("/predict", {"rows": gap}),
        Asked.of("/predict", {"rows": own}),
        Asked("/predict", gzip.compress(rows), headers={**JSON, "content-encoding": "gzip"}),
        Asked.of("/models/tiny_forecast/predict", {"rows": platform.rows()}),
        Asked.of("/invocations", {"dataframe_records": platform.rows()}),
        Asked.of("/v2/models/tiny_forecast/infer", {"inputs": [ids]}),
    ]


def with_intervals(platform: Platform) -> list[Asked]:
    """Return requests for `tiny_intervals`, whose answers tell several coverages."""
    model, ids = "/models/tiny_intervals", {"name": "entity_id", "shape": [2], "datatype": "INT64", "data": [3, 1]}
    return [
        Asked.get(model),
        Asked.of(f"{model}/predict", {"rows": platform.rows()}),
        Asked.of(f"{model}/predict/feast/batch", {"entities": list(UNITS)}),
        Asked.of(f"/v2{model}/infer", {"inputs": [ids]}),
    ]


def _refused(platform: Platform) -> list[Asked]:
    broken, late = platform.rows(), platform.rows()
    broken[2]["oil"] = "hot"
    late[1]["event_timestamp"] = "yesterday"
    return [
        Asked.of(ENTITIES, {"entities": [1, 99], "on_error": "fail"}),
        Asked.of(ENTITIES, {"entities": ["1"]}),
        Asked.of(ENTITIES, {"entities": []}),
        Asked.of(ENTITIES, {"entities": [1, 1]}),
        Asked.of(ENTITIES, {"entities": list(range(100_000))}),
        Asked.of(ENTITIES, {"entities": [1], "other": 2}),
        Asked.of(ENTITIES, {"entities": [1], "version": 77}),
        Asked.of(ENTITIES, {"entities": [1], "alias": "nobody"}),
        Asked.of(ENTITIES, {"entities": [1], "time_point": "1999-01-01T00:00:00Z"}),
        Asked.of(ENTITIES, {"entities": [2**70]}),
        Asked.of(ENTITIES, {"entities": [1], "future": [{"event_timestamp": "2026-01-06T00:00:00Z"}]}),
        Asked.of("/predict", {"rows": broken}),
        Asked.of("/predict", {"rows": late}),
        Asked.of("/predict", {"rows": platform.rows(5)}),
        Asked.of("/predict", {"rows": []}),
        Asked.of("/predict", {"rows": [{}]}),
        Asked.of("/models/nobody/predict", {"rows": platform.rows()}),
        Asked.of("/v2/models/tiny_forecast/infer", {"inputs": []}),
    ]


def _absurd(platform: Platform) -> list[Asked]:
    rows = json.dumps({"rows": platform.rows()}).encode()
    return [
        *(Asked("/predict", body) for body in (b"", b"{", b"null", b"[]", b'"rows"', b"\xff\xfe\x00", b"NaN")),
        Asked("/predict", b'{"rows": [' + b"[" * 2_000),
        Asked("/predict", rows[:-7]),
        Asked("/predict", rows, headers={"content-type": "text/csv"}),
        Asked("/predict", rows, headers={}),
        Asked("/predict", rows, headers={**JSON, "content-encoding": "gzip"}),
        Asked("/predict", gzip.compress(rows)[:-9], headers={**JSON, "content-encoding": "gzip"}),
        Asked("/predict", rows, headers={**JSON, "content-encoding": "br"}),
        Asked("/predict", b"[" * 2_000_000),
        Asked("/predict", rows, headers={**JSON, "x-request-id": "é" * 30}),
        Asked("/predict", rows, method="PUT"),
        Asked("/predict/", rows),
        Asked("/models/%2e%2e/predict", rows),
        Asked("/admin/reload", b"", headers={"authorization": "Bearer wrong"}),
    ]


def _others() -> list[Asked]:
    paths = ("/models", "/models/tiny_forecast", "/health/live", "/health/ready", "/openapi.json", "/docs", "/version")
    paths += ("/v2", "/v2/health/ready", "/v2/models/tiny_forecast", "/nothing", "/predict", "/health", "/ping")
    return [*map(Asked.get, paths), Asked.get("/health/ready", "HEAD"), Asked.get("/predict", "OPTIONS")]


def told(client: httpx.Client, requests: list[Asked]) -> list[tuple[str, int, dict[str, str], str]]:
    """Return path, status, headers and text of every answer, without what depends on the moment."""
    return [(f"{item.method} {item.path} {item.content[:40]!r}", *_told(client, item)) for item in requests]


def _told(client: httpx.Client, item: Asked) -> tuple[int, dict[str, str], str]:
    headers = {name.encode(): value.encode() for name, value in item.headers.items()}
    response = client.request(item.method, item.path, content=item.content, headers=headers)
    own = str(client.base_url)
    kept = {name: value.replace(own, "/") for name, value in response.headers.items() if name not in _PASSING}
    return response.status_code, kept, _text(response)


def _text(response: httpx.Response) -> str:
    if "json" not in response.headers.get("content-type", ""):
        return response.text
    try:
        content = response.json()
    except json.JSONDecodeError:
        return response.text
    if isinstance(content, dict):
        for forecast in content.get("forecasts", []):
            del forecast["age_seconds"]
        content.pop("id", None)
        for model in [content, *content.get("models", [])]:
            for moved in ("promoted_at", "aliases"):
                model.pop(moved, None)
    return json.dumps(content)
