"""Requests of the protocols that something is wrong with are refused, whatever it is: never an error of the server."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
from starlette.testclient import TestClient

from mlplatform_tests.serving.conftest import TOKEN, Platform
from mlplatform_tests.serving.servers import wait_until_loaded
from serving.api import build_app
from serving.local import LocalBackend

ROUTES = ("/v2/models/{name}/infer", "/v1/timeseries/forecast", "/invocations", "/features/push", "/feedback")
EXPERIMENTS = ("tiny_forecast", "tiny_classification")
# What takes the place of a value; the text is one that is found in requests.
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**63,
    1e300,
    1.5,
    "",
    "x",
    "load",
    "\x00",
    [],
    [[]],
    {},
    {"a": 1},
    "2026-01-01",
)
MUTATIONS = 120


@pytest.fixture(scope="module", params=EXPERIMENTS)
def client(platform: Platform, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    settings = platform.serving(request.param)
    app = build_app({settings.experiment: LocalBackend(settings)}, settings)
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until_loaded(client)
        yield client


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def mutated(document: Any, chance: random.Random) -> Any:
    """Return a document with a value replaced, dropped, repeated, or given another name."""
    found = copy.deepcopy(document)
    for _ in range(chance.choice((1, 1, 2))):
        *outer, last = chance.choice([path for path in places(found) if path])
        place = found
        for key in outer:
            place = place[key]
        match chance.randrange(4):
            case 0:
                del place[last]
            case 1 if isinstance(place, list):
                place.insert(0, place[last])
            case 1:
                place[f"{last}2"] = place.pop(last)
            case _:
                place[last] = copy.deepcopy(chance.choice(ODD))
        if not found:
            break
    return found


@pytest.mark.parametrize("route", ROUTES)
def test_no_mutation_of_a_request_is_an_error_of_the_server(client: httpx.Client, route: str) -> None:
    methods = client.get("/openapi.json").json()["paths"][route]["post"]
    examples = methods["requestBody"]["content"]["application/json"].get("examples", {})
    chance = random.Random(route)  # noqa: S311  (test data)
    statuses = set()
    for name, example in examples.items():
        address = route.replace("{name}", name)
        for row in example["value"].get("rows", []):
            # What is taken must not change what other tests ask for.
            row["entity_id"] = 4242
        for _ in range(MUTATIONS):
            body = mutated(example["value"], chance)
            headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
            response = client.post(address, content=orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS), headers=headers)
            assert response.status_code < 500, (body, response.text)
            statuses.add(response.status_code)
    assert statuses <= {200, 400, 404, 409, 413, 422}
