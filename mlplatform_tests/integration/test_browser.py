"""What a newcomer sees in a browser: graph, a training that is launched there, gate, report, the page of the server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from mlplatform.registry.pairs import PRODUCTION
from mlplatform.settings import PACKAGE_ROOT
from mlplatform.testing.yard import EXPERIMENT, TRAIN, Yard
from mlplatform_tests.serving.servers import in_thread
from serving.api import build_app
from serving.local import LocalBackend

if TYPE_CHECKING:
    from playwright.sync_api import Page

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Without these a browser asks its makers' servers at every start.
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
# A training on a machine that does much else.
PATIENCE_S = 300

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine"),
    pytest.mark.timeout(900),
]


@contextmanager
def dagster_page(yard: Yard, folder: Path) -> Iterator[str]:
    """Run what `make ui` runs; yields its address."""
    root, home = PACKAGE_ROOT.parent, folder / "dagster"
    home.mkdir()
    shutil.copy(root / "dagster.yaml", home)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "dagster", "dev", "--workspace", str(root / "workspace.yaml"), "--port", str(port)]
    environ = os.environ | yard.environ | {"DAGSTER_HOME": str(home), "MLPLATFORM_EXAMPLES": "0"}
    environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    with (folder / "dagster.log").open("w") as log:
        # A group of its own: what it starts ends with it.
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1"], env=environ, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_S
        while not _answers(url):
            assert process.poll() is None, (folder / "dagster.log").read_text()
            assert time.monotonic() < deadline, "the page did not start"
            time.sleep(0.3)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/server_info", timeout=5).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def browser_page(pictures: Path) -> Iterator[Page]:
    """Open a page; what it shows at the end, whatever happened, is among the pictures."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as program:
        browser = program.chromium.launch(executable_path=BROWSER, args=QUIET)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(60_000)
        try:
            yield page
        finally:
            page.screenshot(path=pictures / "last.png")
            browser.close()


def test_from_the_graph_to_a_forecast(tmp_path: Path, mlflow_database: Path) -> None:
    from playwright.sync_api import expect

    # On a machine that is busy the graph takes longer than playwright's five seconds.
    expect.set_options(timeout=PATIENCE_S * 1000)
    yard = Yard.create(tmp_path, mlflow_database)
    pictures = tmp_path / "screenshots"
    pictures.mkdir()
    with dagster_page(yard, tmp_path) as url, browser_page(pictures) as page:
        page.goto(f"{url}/asset-groups")
        expect(page.get_by_text(EXPERIMENT).first).to_be_visible()
        page.screenshot(path=pictures / "graph.png")

        page.goto(f"{url}/locations/mlplatform/jobs/{TRAIN}/playground")
        page.get_by_role("button", name="Launch Run").click()
        # No field asks for one of the folds: the run's tags name all of them.
        page.wait_for_url("**/runs/*")
        expect(page.get_by_text("Success", exact=True).first).to_be_visible()
        page.screenshot(path=pictures / "run.png")

        page.goto(f"{url}/assets/{EXPERIMENT}/registered_pair?view=checks&checkDetail=promotion_gate")
        expect(page.get_by_text("beats the baselines").first).to_be_visible()
        page.screenshot(path=pictures / "gate.png")

        page.goto(f"{url}/assets/{EXPERIMENT}/production_alias")
        report = page.get_by_role("link", name="report.html")
        expect(report).to_be_visible()
        pair = yard.pairs.resolve(EXPERIMENT, PRODUCTION)
        assert (report.get_attribute("href") or "").endswith(f"/runs/{pair.run_id}/artifacts/report.html")
        page.screenshot(path=pictures / "alias.png")

        page.goto(Path(yard.pairs.client.download_artifacts(pair.run_id, "report.html")).as_uri())
        expect(page.get_by_role("heading", level=1)).to_have_text(f"{EXPERIMENT} version 1")
        drawn = page.eval_on_selector_all("img", "images => images.map(each => each.naturalWidth)")
        assert drawn
        assert min(drawn) > 0
        page.screenshot(path=pictures / "report.png", full_page=True)

        settings = replace(yard.settings, experiment=EXPERIMENT)
        with in_thread(build_app({EXPERIMENT: LocalBackend(settings)}, settings)) as client:
            page.goto(str(client.base_url))
            page.wait_for_selector("#entities option", state="attached")
            page.focus("#entity")
            page.keyboard.press("Enter")
            page.wait_for_selector("#answer figure")
            page.screenshot(path=pictures / "server.png", full_page=True)
    taken = {path.stem for path in pictures.iterdir()}
    assert taken == {"graph", "run", "gate", "alias", "report", "server", "last"}
