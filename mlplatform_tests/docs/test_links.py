"""Every link inside the repository leads somewhere, and the words of the code are where people look them up."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from mlplatform.config import ALERT_EVENTS
from mlplatform.promotion.decision import Outcome
from mlplatform.promotion.promoter import Objection
from mlplatform_tests.docs.pages import PAGES, ROOT, anchors, inline_code, links

RUNBOOK = ROOT / "docs" / "runbook.md"
# Where the code stands among the arguments of what makes an error; functions of a module that take one are found.
CODE_ARGUMENT = {"ServingError": 1, "__init__": 1, "invalid": 0}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    broken = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            broken.append(f"{link}: no such file")
        # Headings of docstrings are made when the site is built, which checks them.
        elif (
            anchor and target.suffix == ".md" and not anchor.startswith("mlplatform.") and anchor not in anchors(target)
        ):
            broken.append(f"{link}: no such heading")
    assert not broken


def _codes(path: Path) -> set[str]:
    """Return the codes of all errors that a module makes, also those that stand in a constant or a local name."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    parameters = {function.name: [each.arg for each in function.args.args] for function in functions}
    places = CODE_ARGUMENT | {name: given.index("code") for name, given in parameters.items() if "code" in given}
    codes = set()
    for function in functions:
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            place = places.get(getattr(call.func, "id", getattr(call.func, "attr", "")))
            if place is not None and place < len(call.args):
                codes |= _texts(call.args[place], function, tree)
    return codes


def _texts(argument: ast.expr, function: ast.AST, tree: ast.Module) -> set[str]:
    """Return the words that an argument may be."""
    values = [argument] if isinstance(argument, ast.Constant) else []
    if isinstance(argument, ast.Name):
        values = [
            node.value
            for scope in (tree, function)
            for node in ast.walk(scope)
            if isinstance(node, ast.Assign) and any(getattr(to, "id", "") == argument.id for to in node.targets)
        ]
    leaves = {leaf.value for value in values for leaf in ast.walk(value) if isinstance(leaf, ast.Constant)}
    return {leaf for leaf in leaves if isinstance(leaf, str) and re.fullmatch("[a-z_]+", leaf)}


def test_every_error_of_the_server_is_in_the_runbook() -> None:
    codes = {code for path in (ROOT / "serving").rglob("*.py") for code in _codes(path)}
    assert {"stale_features", "challenger_paused", "no_such_route", "overloaded", "not_ready"} <= codes
    assert codes - set(inline_code(RUNBOOK)) == set()


def test_every_alert_is_in_the_runbook() -> None:
    rules = yaml.safe_load((ROOT / "serving/observability/alerts.yaml").read_text())
    of_prometheus = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert {*ALERT_EVENTS, *of_prometheus} - set(inline_code(RUNBOOK)) == set()


def test_every_outcome_of_the_gate_is_in_the_runbook() -> None:
    assert {*get_args(Outcome), *get_args(Objection)} - set(inline_code(RUNBOOK)) == set()


def test_the_runbook_knows_no_words_that_are_gone() -> None:
    """First cells of its tables are codes, alerts and outcomes; each must still be in the code."""
    code = "\n".join(
        path.read_text()
        for place, pattern in (("serving", "*.py"), ("serving/observability", "alerts.yaml"), ("mlplatform", "*.py"))
        for path in (ROOT / place).rglob(pattern)
    )
    rows = [line for line in RUNBOOK.read_text().splitlines() if line.startswith("| `")]
    words = {word for row in rows for word in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert {word for word in words if f'"{word}"' not in code and f"alert: {word}" not in code} == set()
