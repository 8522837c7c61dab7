"""How results that are no table show themselves in a notebook."""

from __future__ import annotations

import pytest

from mlplatform.api import Change, DeletionPlan, Proposal
from mlplatform.api.facts import facts_html


def test_names_and_values_stand_beside_each_other_and_are_text() -> None:
    shown = facts_html({"reason": "a < b", "production": None, "servers": ("one", "two"), "registered": {"x": 3}})
    assert shown.count("<tr>") == 4
    assert "a &lt; b" in shown
    assert ">-</td>" in shown
    assert "one\ntwo" in shown
    assert "x: 3" in shown


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (Change("plant", False, "not better", 1), "not better"),
        (DeletionPlan("plant", None, {"plant_model": 2}, 2, {}, ("its YAML",)), "plant_model: 2"),
        (Proposal("plant", "forecast", "name: plant\n", ("10 rows",)), "name: plant"),
    ],
)
def test_results_are_tables_of_facts(result: Change | DeletionPlan | Proposal, words: str) -> None:
    assert words in result._repr_html_()
