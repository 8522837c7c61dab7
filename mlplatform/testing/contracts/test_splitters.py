"""The contract every splitter keeps: training and validation apart, for preprocessing too, and the same folds twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mlplatform.datamodule.folds import Splitter, SplitterParams
from mlplatform.plugins import SPLITTERS
from mlplatform.testing.sample_indices import index_for

REGISTRY = SPLITTERS


@pytest.fixture(params=SPLITTERS.names())
def name(request: pytest.FixtureRequest) -> str:
    """Every splitter."""
    return str(request.param)


def make(name: str, folds: int = 3) -> Splitter:
    """Return the splitter with its example parameters."""
    plugin = SPLITTERS.get(name)
    splitter: Splitter = plugin(plugin.Params.model_validate(plugin.example_params()), folds, 0)
    return splitter


def test_a_splitter_declares_tasks_and_strict_parameters(name: str) -> None:
    plugin = SPLITTERS.get(name)
    assert isinstance(plugin, type)
    assert issubclass(plugin, Splitter)
    assert plugin.tasks <= {"forecast", "regression", "classification"}
    assert plugin.tasks
    assert plugin.separates in ("time", "groups", "rows")
    assert issubclass(plugin.Params, SplitterParams)
    assert plugin.Params.model_config["extra"] == "forbid"


def test_training_and_validation_are_samples_and_disjoint(name: str) -> None:
    index = index_for(name)
    folds = make(name).split(index)
    assert len(folds) == 3
    for fold in folds:
        assert len(fold.train)
        assert len(fold.validation)
        assert set(fold.train) <= set(index.samples)
        assert set(fold.validation) <= set(index.samples)
        assert not set(fold.train) & set(fold.validation)


def test_preprocessing_never_sees_what_a_fold_is_validated_on(name: str) -> None:
    index = index_for(name)
    for fold in make(name).split(index):
        ahead = range(1, index.horizon + 1) if index.horizon else [0]
        validated = {row + step for row in fold.validation for step in ahead}
        assert not set(fold.fit_rows) & validated
        assert set(fold.train) <= set(fold.fit_rows)


def test_outer_folds_are_kept_apart_too(name: str) -> None:
    index = index_for(name)
    for fold in make(name).outer().split(index):
        assert len(fold.train)
        assert not set(fold.train) & set(fold.validation)
        assert set(fold.train) <= set(fold.fit_rows)


def test_the_same_seed_gives_the_same_folds(name: str) -> None:
    index = index_for(name)
    for first, second in zip(make(name).split(index), make(name).split(index), strict=True):
        for part in ("fit_rows", "train", "validation"):
            np.testing.assert_array_equal(getattr(first, part), getattr(second, part))


def test_too_few_samples_are_refused_with_numbers(name: str) -> None:
    index = index_for(name)
    few = replace(index, samples=index.samples[:2])
    with pytest.raises(ValueError, match=r"\d+ .*(samples|folds)"):
        make(name, folds=5).split(few)
