"""What a request reads from the feature store does not show whether others read with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mlplatform.features.retrieval import FeaturePanel
from mlplatform.settings import Settings
from mlplatform_tests.serving.conftest import Platform
from serving import store_reads
from serving.bundle import Bundle, BundleLoader
from serving.errors import ServingError
from serving.inference import read_panel
from serving.store_reads import StoreRead, read_all


@pytest.fixture(scope="module")
def bundle(platform: Platform) -> Bundle:
    loader = BundleLoader(platform.serving("tiny_forecast"))
    return loader.load(loader.production())


def told(given: FeaturePanel | Exception) -> object:
    """Return all that is read but for ages, which move with the clock."""
    if isinstance(given, ServingError):
        return given.body()
    assert isinstance(given, FeaturePanel), given
    values = {name: column.tolist() for name, column in given.columns.items()}
    return repr((values, given.timestamps.tolist(), given.entity_ids.tolist(), given.offsets.tolist()))


def test_reads_in_company_are_those_done_alone(
    bundle: Bundle, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = platform.serving("tiny_forecast")
    asked = [StoreRead(bundle, entities, settings) for entities in ([2], [1, 3], [3], [3, 2, 1])]
    expected = [told(read.panel()) for read in asked]
    calls: list[list[int | str]] = []

    def counted(*arguments: object) -> FeaturePanel:
        calls.append(arguments[3])  # type: ignore[arg-type] # the entities
        return read_panel(*arguments)  # type: ignore[arg-type] # as it is called

    monkeypatch.setattr(store_reads, "read_panel", counted)
    assert list(map(told, read_all(asked))) == expected
    assert calls == [[2, 1, 3]]


def test_an_entity_that_is_unknown_fails_its_own_request_alone(bundle: Bundle, platform: Platform) -> None:
    settings = platform.serving("tiny_forecast")
    known, unknown, odd = (StoreRead(bundle, entities, settings) for entities in ([2], [1, 77], ["2"]))
    answers = read_all([known, unknown, odd, known])
    assert told(answers[0]) == told(answers[3]) == told(known.panel())
    assert isinstance(answers[1], ServingError)
    assert (answers[1].status, answers[1].entities) == (404, (77,))
    assert isinstance(answers[2], ServingError)
    assert answers[2].status == 422


def test_a_store_that_is_away_is_asked_once_for_all(
    bundle: Bundle, platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away: Settings = dataclasses.replace(platform.serving("tiny_forecast"), home=tmp_path / "nowhere")
    calls = 0

    def counted(*arguments: object) -> FeaturePanel:
        nonlocal calls
        calls += 1
        return read_panel(*arguments)  # type: ignore[arg-type] # as it is called

    monkeypatch.setattr(store_reads, "read_panel", counted)
    answers = read_all([StoreRead(bundle, [entity], away) for entity in (1, 2, 3)])
    assert calls == 1
    assert [answer.code for answer in answers if isinstance(answer, ServingError)] == ["feature_store_unavailable"] * 3


def test_entities_of_a_panel_are_found_again_whatever_their_lengths() -> None:
    panel = FeaturePanel(
        columns={"load": np.arange(6, dtype=np.float32)},
        timestamps=np.arange(6).astype("datetime64[h]").astype("datetime64[ns]"),
        entity_ids=np.array(["a", "b", "c"], dtype=object),
        offsets=np.array([0, 1, 4, 6]),
        event_times=np.arange(3).astype("datetime64[ns]"),
        ages=np.arange(3).astype("timedelta64[ns]"),
        is_stale=np.array([True, False, False]),
        known_ahead={"oil": np.array([[1.0], [2.0], [3.0]])},
    )
    chosen = panel.of_entities(np.array([2, 0, 2]))
    assert chosen.columns["load"].tolist() == [4, 5, 0, 4, 5]
    assert chosen.entity_ids.tolist() == ["c", "a", "c"]
    assert chosen.offsets.tolist() == [0, 2, 3, 5]
    assert chosen.is_stale.tolist() == [False, True, False]
    assert chosen.known_ahead["oil"].tolist() == [[3.0], [1.0], [3.0]]
