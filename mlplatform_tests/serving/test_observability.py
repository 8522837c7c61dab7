"""Dashboard and alerts ask for what a running server tells; Prometheus' own tool reads and tries them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import serving
from mlplatform_tests.serving.conftest import Platform
from mlplatform_tests.serving.servers import in_thread
from serving.api import build_app
from serving.local import LocalBackend

FOLDER = Path(serving.__file__).parent / "observability"
ALERTS, TRIALS, DASHBOARD = FOLDER / "alerts.yaml", FOLDER / "alerts_test.yaml", FOLDER / "dashboard.json"
# What Prometheus puts on every series, and on histograms.
ADDED = {"job", "instance", "le"}


def expressions_of_alerts() -> list[str]:
    return [rule["expr"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def expressions_of_dashboard() -> list[str]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


@pytest.fixture(scope="module")
def told(platform: Platform) -> dict[str, set[str]]:
    """What a scrape of a running server has: the names of its series, and their labels."""
    settings = platform.serving("tiny_forecast")
    with in_thread(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        client.post("/predict/feast/batch", json={"entities": [1]})
        client.post("/predict/feast/batch", json={"entities": [99]})
        client.post("/admin/reload", headers={"authorization": f"Bearer {settings.admin_token}"})
        page = client.get("/metrics").text
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    families = {family.name: set[str]() for family in text_string_to_metric_families(page) if not family.samples}
    # Families whose series begin with the first event have a name, and no labels yet.
    found = {f"{name}_total": {"experiment", "outcome"} for name in families if name == "mlplatform_stale_features"}
    for sample in samples:
        found.setdefault(sample.name, set()).update(sample.labels)
    return found


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Yield the metrics of an expression, and the labels that are asked of each."""
    for name, _, labels in re.findall(r"\b(mlplatform_\w+)(\{([^}]*)\})?", expression):
        yield name, set(re.findall(r"(\w+)\s*[=!]~?", labels))


@pytest.mark.parametrize("expression", [*expressions_of_alerts(), *expressions_of_dashboard()])
def test_what_is_asked_for_is_told(told: dict[str, set[str]], expression: str) -> None:
    asked = list(selectors(expression))
    assert asked
    known = set.union(ADDED, *(told.get(name, set()) for name, _ in asked))
    for name, labels in asked:
        assert name in told, f"{name} is not in a scrape"
        assert labels <= told[name] | ADDED, f"{name} has no {labels - told[name]}"
    for grouped in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
        assert {label.strip() for label in grouped.split(",")} <= known


def test_every_metric_is_shown_or_watched(told: dict[str, set[str]]) -> None:
    expressions = " ".join([*expressions_of_alerts(), *expressions_of_dashboard()])
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in told if name.startswith("mlplatform_")}
    assert {family for family in families if family not in expressions} == set()


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: the package prometheus)")
    return found


def test_prometheus_reads_the_alerts_and_they_fire_when_they_should(promtool: str) -> None:
    for command in (["check", "rules", ALERTS.name], ["test", "rules", TRIALS.name]):
        done = subprocess.run([promtool, *command], cwd=FOLDER, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
    tried = {
        item["alertname"] for test in yaml.safe_load(TRIALS.read_text())["tests"] for item in test["alert_rule_test"]
    }
    rules = [rule["alert"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert tried == set(rules)


def test_prometheus_reads_the_expressions_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions_of_dashboard())
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_has_what_grafana_asks_of_one() -> None:
    board = json.loads(DASHBOARD.read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(panels))) - {"__rate_interval"}
    assert used == variables
    places = [panel["gridPos"] for panel in panels]
    cells = [(place["x"] + x, place["y"] + y) for place in places for x in range(place["w"]) for y in range(place["h"])]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
