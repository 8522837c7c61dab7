"""The OpenAPI description says how every operation may end; requests made from it find nothing that it does not say."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlplatform_tests.serving.conftest import TOKEN, Platform
from mlplatform_tests.serving.servers import in_thread
from serving.api import build_app
from serving.local import LocalBackend

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[httpx.Client]:
    """A server of `tiny_forecast` that asks for tokens."""
    settings = platform.serving("tiny_forecast", api_tokens=("token",))
    with in_thread(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        client.headers["authorization"] = "Bearer token"
        yield client


@pytest.fixture(scope="module")
def description(client: httpx.Client) -> dict[str, Any]:
    told: dict[str, Any] = client.get("/openapi.json").json()
    return told


def test_every_operation_says_how_it_may_fail(description: dict[str, Any]) -> None:
    operations = [
        (path, method, told) for path, all_of in description["paths"].items() for method, told in all_of.items()
    ]
    assert len(operations) > 25
    for path, method, told in operations:
        expected = {"200", "401", "429", "500", "503"}
        if "requestBody" in told:
            is_protocol = path.startswith(("/v1", "/v2")) or "invocations" in path
            expected |= {"408", "413", "415", "400" if is_protocol else "422"}
        assert expected <= told["responses"].keys(), (path, method)
        for status, answer in told["responses"].items():
            if int(status) >= 400 and "protocol" not in str(told.get("tags")).lower():
                assert "application/problem+json" in answer["content"], (path, method, status)
    assert "HTTPValidationError" not in json.dumps(description["paths"])


def test_what_it_refers_to_is_there(description: dict[str, Any]) -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
            for item in value.values():
                yield from references(item)
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    for reference in set(references(description["paths"])):
        place: Any = description
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
        assert place


@pytest.mark.integration
@pytest.mark.parametrize("token", ["token", TOKEN, "wrong"])
def test_generated_requests_find_no_failure_and_nothing_undescribed(
    client: httpx.Client, token: str, tmp_path: Path
) -> None:
    command = shutil.which("schemathesis")
    if command is None:
        pytest.skip("schemathesis is not installed (pip install schemathesis)")
    page = tmp_path / "openapi.json"
    page.write_text(client.get("/openapi.json").text)
    options = ["--checks", CHECKS, "--max-time", "20", "--no-color", "--url", str(client.base_url)]
    done = subprocess.run(
        [command, "run", str(page), "-H", f"Authorization: Bearer {token}", *options],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
