"""An answer does not show whether its request was answered alone or together with others."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from mlplatform.datamodule import Panel
from mlplatform.registry import Contract, FallbackPolicy
from mlplatform.registry.fallback import StandIns
from mlplatform_tests.serving.conftest import Platform
from serving.answers import answer, to_json
from serving.backend import Prediction
from serving.batching import stacked
from serving.bundle import Bundle, BundleLoader
from serving.errors import ServingError
from serving.questions import Question, answer_all, answer_alone
from serving.rows import is_shareable, panel_from_rows, panels_from_rows

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


def test_the_rows_of_several_requests_are_read_as_each_alone(bundles: dict[str, Bundle], platform: Platform) -> None:
    bundle = bundles["tiny_forecast"]
    contract, types = bundle.pair.contract, bundle.forecaster.preprocessor.columns
    names = {"entity_id": "unit", "event_timestamp": "time"}
    own = [{names.get(name, name): value for name, value in row.items()} for row in platform.rows(15, 3)]
    shuffled = [*platform.rows(14, 3), *platform.rows(20, 1)][::-1]
    asked = [platform.rows(), own, shuffled, platform.rows()]
    assert is_shareable(asked, contract, bundle.rules)
    together, counts = panels_from_rows(asked, contract, types, bundle.rules)
    assert counts == [1, 1, 2, 1]
    assert together.entity_ids.tolist() == [1, 3, 1, 3, 1]
    alone, _ = stacked([panel_from_rows(rows, contract, types, bundle.rules) for rows in asked])
    assert together.timestamps.tolist() == alone.timestamps.tolist()
    assert together.offsets.tolist() == alone.offsets.tolist()
    assert all(together.columns[name].tolist() == alone.columns[name].tolist() for name in contract.columns)


def test_what_cannot_be_read_as_one_is_not(bundles: dict[str, Bundle], platform: Platform) -> None:
    forecast, table = bundles["tiny_forecast"], bundles["tiny_regression"]
    rows, contract = platform.rows(), forecast.pair.contract
    assert not is_shareable([rows, []], contract, forecast.rules)
    assert not is_shareable([rows, rows], replace(contract, planned=("oil",)), forecast.rules)
    local = replace(contract, calendar_text="h tz=Europe/Berlin")
    assert not is_shareable([rows, rows], local, forecast.rules)
    assert not is_shareable([[{"width": 1.0, "entity_id": 3}]], table.pair.contract, table.rules)


def test_what_recalls_the_last_forecasts_does_so_for_the_store_alone(
    bundles: dict[str, Bundle], platform: Platform
) -> None:
    # Old rows of the store fall back on the last forecast; rows that a request brings have none to fall back on.
    bundle = bundles["tiny_forecast"]
    policy = FallbackPolicy(kind="last_forecast", min_observed=1.0, below_min_observed="fallback")
    bundle = replace(bundle, rules=replace(bundle.rules, fallback=policy))
    gap = platform.rows()
    gap[5]["oil"] = None
    brought = question(bundle, gap)

    def recall(panel: Panel, contract: Contract) -> StandIns:
        shape = (len(panel.entity_ids), contract.horizon, len(contract.targets))
        return StandIns(np.full(shape, 7, np.float32), panel.timestamps[panel.offsets[1:] - 1])

    stored = replace(brought, rows=None, recall=recall)
    for asked in ([brought, stored], [stored, brought]):
        found = dict(zip(map(id, asked), answer_all(asked), strict=True))
        refused, recalled = found[id(brought)], found[id(stored)]
        assert isinstance(recalled, Prediction)
        assert recalled.fallback_reasons == ("too_little_observed",)
        assert np.unique(recalled.outputs).tolist() == [7]
        assert isinstance(refused, ServingError)
