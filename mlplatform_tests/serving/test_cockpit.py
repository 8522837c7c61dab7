"""The server's page, what it asks, and what a browser shows of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlplatform.registry.pairs import PairStore
from mlplatform_tests.serving.conftest import TOKEN, Platform
from mlplatform_tests.serving.servers import in_thread
from serving.cockpit.recent import read_entities

NAMES = ("tiny_forecast", "tiny_classification", "tiny_untrained")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Without these a browser asks its makers' servers at every start.
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
STATIC = Path(__file__).resolve().parents[2] / "serving" / "cockpit" / "static"


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[httpx.Client]:
    with in_thread(platform.application(*NAMES, api_tokens=("a-token",))) as client:
        client.post("/admin/reload/tiny_classification", headers={"authorization": f"Bearer {TOKEN}"})
        yield client


def ask(client: httpx.Client, path: str, **query: Any) -> httpx.Response:
    return client.get(path, params=query, headers={"authorization": "Bearer a-token"})


def test_the_recent_past_is_what_the_store_holds(client: httpx.Client, platform: Platform) -> None:
    answer = ask(client, "/models/tiny_forecast/recent", entity="2", steps=8).json()
    stored = platform.raw[platform.raw.entity_id == 2].tail(8)
    assert answer["entity"] == 2
    assert answer["timestamps"] == [time.strftime("%Y-%m-%dT%H:%M:%SZ") for time in stored.event_timestamp]
    assert answer["values"] == {"oil": [float(str(value)) for value in stored.oil.to_numpy()]}


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        ("/models/tiny_forecast/recent", {"entity": "99"}, 404, "unknown_entity"),
        ("/models/tiny_forecast/recent", {"entity": "1", "steps": "0"}, 422, "invalid_request"),
        ("/models/tiny_forecast/recent", {}, 422, "invalid_request"),
        ("/models/tiny_classification/recent", {"entity": "1"}, 409, "no_series"),
        ("/models/tiny_untrained/recent", {"entity": "1"}, 503, "not_ready"),
        ("/models/tiny_classification/followed", {"entity": "1"}, 409, "no_series"),
        ("/models/nothing/live", {}, 404, "unknown_model"),
        ("/models/nothing/recent", {"entity": "1"}, 404, "unknown_model"),
        ("/models/nothing/drift", {}, 404, "unknown_model"),
    ],
)
def test_what_cannot_be_shown_is_refused_by_name(
    client: httpx.Client, path: str, query: dict[str, str], status: int, code: str
) -> None:
    response = ask(client, path, **query)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["error"]["code"] == code


def test_entities_and_drift(client: httpx.Client) -> None:
    assert ask(client, "/models/tiny_forecast/entities").json() == {"entities": [1, 2, 3], "more": 0}
    assert ask(client, "/models/tiny_forecast/drift").json() is None


def test_entities_are_those_of_the_store_and_what_is_left_out_is_counted(platform: Platform, tmp_path: Path) -> None:
    contract = PairStore(platform.settings).resolve("tiny_forecast").contract
    assert read_entities(contract, [3, 99], 2, platform.settings) == {"entities": [3, 1], "more": 1}
    # A server on a machine that does not see what was written to the store.
    elsewhere = replace(platform.settings, home=tmp_path)
    assert read_entities(contract, [1, 2], 2, elsewhere) == {"entities": [1, 2], "more": None}


def test_the_page_is_open_and_what_it_asks_is_not(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    for name in ("page.js", "page.css"):
        assert client.get(f"/page/{name}").status_code == 200
    assert client.get("/models").status_code == 401
    assert client.get("/models/tiny_forecast/recent", params={"entity": "1"}).status_code == 401
    assert client.get("/page/../models").status_code == 401


def test_nothing_of_the_page_is_from_elsewhere() -> None:
    for path in STATIC.iterdir():
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", path.read_text()))
        # The name of a language, which nobody fetches.
        assert addresses <= {"http://www.w3.org/2000/svg"}
        assert "innerHTML" not in path.read_text()


@pytest.mark.integration
def test_a_browser_shows_models_and_a_forecast(client: httpx.Client, tmp_path: Path) -> None:
    if BROWSER is None:
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as program:
        browser = program.chromium.launch(executable_path=BROWSER, args=QUIET)
        page = browser.new_page()
        said: list[str] = []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(str(client.base_url))
        page.fill("#token", "wrong")
        page.click("#token-form button")
        expect(page.locator("#state")).to_contain_text("asks for a token")
        page.fill("#token", "a-token")
        page.click("#token-form button")
        page.wait_for_selector("#models tr")
        first = page.inner_text("#models tr:nth-child(1)").split()
        assert first[:3] == ["tiny_forecast", "version", "1"]
        # Below it, what else the registry points at; `previous` depends on what other tests have promoted.
        assert first[first.index("staging:") + 1] == "2"
        assert "run train_tiny_untrained" in page.inner_text("#models tr:nth-child(3)")
        page.wait_for_selector("#entities option", state="attached")
        # By keyboard alone.
        page.focus("#entity")
        page.keyboard.press("Enter")
        page.wait_for_selector("#answer figure")
        assert page.locator("svg path.past").get_attribute("d")
        assert "oil of 1: tiny_forecast version 1" in page.inner_text("figcaption")
        assert "oil of 1: " in page.inner_text("#said")
        # Nothing that was served has come true, so the model is asked as of a horizon ago.
        assert page.locator("svg path.before").get_attribute("d")
        assert "asked as of" in page.inner_text("figure .note")
        ahead, before = page.locator("#answer details").all()
        assert (ahead.locator("tbody tr").count(), before.locator("tbody tr").count()) == (3, 3)
        page.screenshot(path=str(tmp_path / "forecast.png"), full_page=True)
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.screenshot(path=str(tmp_path / "phone.png"), full_page=True)
        page.fill("#entity", "<b>99</b>")
        page.click("#ask button")
        expect(page.locator("#problem")).not_to_be_empty()
        assert page.locator("#problem b").count() == 0
        page.select_option("#model", "tiny_classification")
        expect(page.locator("#entity")).not_to_have_value("<b>99</b>")
        page.click("#ask button")
        expect(page.locator("#answer")).to_contain_text("tiny_classification")
        assert {"large", "small"} <= set(page.inner_text("#answer table tbody").split())
        browser.close()
    assert said == []


DRAWN = """([first, months, low, high]) => {
  const past = Array.from({ length: months }, (_, place) => [Date.UTC(first, place, 1), place % 2 ? low : high]);
  const picture = draw("load", past, [], []);
  byId("answer").replaceChildren(picture);
  const edge = picture.getBoundingClientRect().left;
  const words = (name) => [...picture.querySelectorAll(`text.${name}`)];
  return {
    levels: words("level").map((each) => each.textContent), times: words("time").map((each) => each.textContent),
    room: Math.min(...[...words("level"), ...words("time")].map((each) => each.getBoundingClientRect().left - edge)),
  };
}"""


@pytest.mark.integration
def test_a_browser_shows_numbers_and_dates_as_people_write_them(client: httpx.Client) -> None:
    if BROWSER is None:
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as program:
        browser = program.chromium.launch(executable_path=BROWSER, args=QUIET)
        page = browser.new_page()
        page.goto(str(client.base_url))
        values = [0, 2000, 10000, 11283.44, -1234567.8, 99.5, 0.123456, 2.5e8, 1e-5, None]
        shown = ["0", "2000", "10000", "11283", "-1234568", "99.5", "0.12346", "2.5e+8", "1e-5", "-"]
        assert page.evaluate("(values) => values.map(number)", values) == shown
        drawn = page.evaluate(DRAWN, [2012, 48, 11000, 38000])
        assert drawn["levels"] == ["10000", "20000", "30000"]
        assert drawn["times"][:3] == ["2012", "2013", "2014"] or drawn["times"][:2] == ["2012-01", "2012-07"]
        assert drawn["room"] >= 0
        ranges = [
            (-1999999.0, 8888888.0),
            (11280.1, 11280.4),
            (0.0, 1e-9),
            (0.0, 3e12),
            *((0.0, n) for n in range(1, 40)),
        ]
        for low, high in ranges:
            drawn = page.evaluate(DRAWN, [2012, 13, low, high])
            assert len(set(drawn["levels"])) == len(drawn["levels"]) >= 2, (low, high)
            assert drawn["room"] >= 0, (low, high)
        browser.close()
