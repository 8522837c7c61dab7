"""Batches of the model's calls, metrics of several replicas, and versions that are loaded ahead."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlplatform.registry import Answers, input_panel
from mlplatform.registry.pairs import PairStore
from mlplatform_tests.serving.conftest import Platform
from serving.bundle import BundleLoader
from serving.ray_batches import SamplesOfBundle, infer_all
from serving.ray_peers import merged
from serving.ray_versions import PairRef, VersionCache


@pytest.mark.parametrize("task", ["forecast", "regression", "classification"])
def test_calls_that_share_a_predict_have_the_answers_they_would_have_alone(platform: Platform, task: str) -> None:
    settings = platform.serving(f"tiny_{task}")
    loader = BundleLoader(settings)
    bundle = loader.load(loader.production())
    rows, _ = PairStore(settings).example(bundle.pair)
    panel = input_panel(bundle.pair.contract, rows)
    whole = bundle.forecaster.preprocess(panel)
    parts = [whole, whole.select(np.array([0])), whole.select(np.arange(len(whole))[::-1])]
    answers = infer_all([SamplesOfBundle(bundle, part) for part in parts])
    for part, answer in zip(parts, answers, strict=True):
        assert isinstance(answer, Answers)
        alone = bundle.forecaster.infer_answers(part)
        assert [None if a is None else a.tobytes() for a in answer[:3]] == [
            None if a is None else a.tobytes() for a in alone[:3]
        ]


def test_metrics_of_replicas_stand_side_by_side_under_their_names() -> None:
    page = b"""# HELP asked_total Requests.
# TYPE asked_total counter
asked_total{route="/a"} %d.0
# HELP age Age.
# TYPE age gauge
age 3.0
"""
    text = merged([("one", page % 1), ("two", page % 2)]).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert [(s.labels, s.value) for s in families["asked"].samples] == [
        ({"replica": "one", "route": "/a"}, 1.0),
        ({"replica": "two", "route": "/a"}, 2.0),
    ]
    assert [s.labels for s in families["age"].samples] == [{"replica": "one"}, {"replica": "two"}]
    assert text.count("# TYPE asked_total") == 1


def test_what_was_loaded_ahead_is_there_at_once() -> None:
    loaded: list[PairRef] = []

    def load(ref: PairRef) -> str:
        loaded.append(ref)
        return "pair"

    async def scenario() -> str:
        cache, ref = VersionCache(load), PairRef("tiny", 1, "p1")
        assert cache.preload(ref) == "pair"
        return await cache.get(ref)

    assert asyncio.run(scenario()) == "pair"
    assert len(loaded) == 1
