"""An answer does not show whether its request was answered alone or together with others."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from mlplatform_tests.serving.conftest import Platform
from serving.answers import answer, to_json
from serving.backend import Prediction
from serving.bundle import Bundle, BundleLoader
from serving.errors import ServingError
from serving.questions import Question, answer_all, answer_alone
from serving.rows import panel_from_rows

Rows = list[dict[str, Any]]


def question(bundle: Bundle, rows: Rows) -> Question:
    types = bundle.forecaster.preprocessor.columns
    return Question(bundle, partial(panel_from_rows, rows, bundle.pair.contract, types, bundle.rules), rows)


def told(given: Prediction | Exception) -> Any:
    """Return all that a client would be told, but for the age of rows, which moves with the clock."""
    if isinstance(given, ServingError):
        return given.body()
    assert isinstance(given, Prediction), given
    content = answer(given)
    for item in content.get("forecasts", content.get("predictions")):
        item.pop("age_seconds")
    return to_json(content)


@pytest.fixture(scope="module")
def bundles(platform: Platform) -> dict[str, Bundle]:
    loaders = (BundleLoader(platform.serving(f"tiny_{task}")) for task in ("forecast", "regression", "classification"))
    return {loader.experiment: loader.load(loader.production()) for loader in loaders}


def test_answers_in_company_are_those_given_alone(bundles: dict[str, Bundle], platform: Platform) -> None:
    forecast, regression, classification = bundles.values()
    gap = platform.rows(20, 3)
    gap[12]["oil"], gap[13]["load"] = None, 99.0
    asked = [
        question(forecast, platform.rows()),
        question(regression, [{"width": 3.0, "colour": "red"}]),
        question(forecast, platform.rows()[1:]),  # too short
        question(regression, [{"width": -1.0, "colour": None}, {"width": 8.5, "colour": "green"}]),
        question(classification, [{"width": 3.0, "colour": "red"}]),
        question(forecast, [*platform.rows(20, 2), *platform.rows(14, 1)]),
        question(forecast, gap),
        question(classification, [{"width": 9.0, "colour": "red"}]),
    ]
    expected = []
    for item in asked:
        try:
            expected.append(told(answer_alone(item)))
        except ServingError as error:
            expected.append(told(error))
    assert list(map(told, answer_all(asked))) == expected
    assert b"invalid" not in expected[3]
    assert expected[2]["error"]["code"] == "invalid_rows"
    # Without the one that is refused they really are answered together.
    kept = [place for place in range(len(asked)) if place != 2]
    assert list(map(told, answer_all([asked[place] for place in kept]))) == [expected[place] for place in kept]


def test_rows_with_ids_keep_them_and_rows_without_are_numbered_per_request(bundles: dict[str, Bundle]) -> None:
    bundle, row = bundles["tiny_regression"], {"width": 3.0, "colour": "red"}
    plain = answer_all([question(bundle, [row, row]), question(bundle, [row])])
    assert [list(item.entity_ids) for item in plain if isinstance(item, Prediction)] == [[0, 1], [0]]
    mixed = answer_all([question(bundle, [{"entity_id": "a", **row}]), question(bundle, [row])])
    assert [list(item.entity_ids) for item in mixed if isinstance(item, Prediction)] == [["a"], [0]]


def test_every_tree_family_may_answer_in_company(bundles: dict[str, Bundle]) -> None:
    assert all(bundle.is_batchable for bundle in bundles.values())
