"""The contract every splitter keeps, over the registry, and what each one promises beyond it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.datamodule.folds import Fold, SampleIndex, Splitter, SplitterParams, StoredFold
from mlplatform.plugins import SPLITTERS

HOUR = np.timedelta64(1, "h")


def series_index(hours: int = 100, entities: int = 2, lookback: int = 6, horizon: int = 4) -> SampleIndex:
    """Origins of hourly series; the second entity starts ten hours later."""
    times, samples, offset = [], [], 0
    for entity in range(entities):
        steps = np.arange(10 * entity, hours)
        times.append(np.datetime64("2024-01-01", "ns") + steps * HOUR)
        samples.append(offset + np.arange(lookback - 1, len(steps) - horizon))
        offset += len(steps)
    return SampleIndex(np.concatenate(samples), np.concatenate(times), HOUR, horizon)


def table_index(rows: int = 60) -> SampleIndex:
    """Every row but every seventh is a sample; a third of the labels are `rare`."""
    samples = np.array([row for row in range(rows) if row % 7])
    labels = np.array(["rare" if row % 3 == 0 else "common" for row in range(rows)], dtype=object)
    times = np.full(rows, np.datetime64("2000-01-01", "ns"))
    return SampleIndex(samples, times, np.timedelta64(0), 0, labels)


# A new splitter adds its parameters and the samples it is tried on here.
EXAMPLES: dict[str, tuple[dict[str, Any], Callable[[], SampleIndex]]] = {
    "expanding": ({"validation_steps": 12, "gap": 2}, series_index),
    "kfold": ({}, table_index),
    "stratified_kfold": ({}, table_index),
}
KFOLDS = ("kfold", "stratified_kfold")


def make(name: str, folds: int = 3, seed: int = 0, **params: Any) -> Splitter:
    plugin = SPLITTERS.get(name)
    splitter: Splitter = plugin(plugin.Params.model_validate(params or EXAMPLES[name][0]), folds, seed)
    return splitter


@pytest.fixture(params=SPLITTERS.names())
def name(request: pytest.FixtureRequest) -> str:
    assert request.param in EXAMPLES, f"add parameters and samples for splitter {request.param!r} to EXAMPLES"
    return str(request.param)


def test_a_splitter_declares_tasks_and_strict_parameters(name: str) -> None:
    plugin = SPLITTERS.get(name)
    assert issubclass(plugin, Splitter)
    assert plugin.tasks <= {"forecast", "regression", "classification"}
    assert plugin.tasks
    assert issubclass(plugin.Params, SplitterParams)
    assert plugin.Params.model_config["extra"] == "forbid"


def test_training_and_validation_are_samples_and_disjoint(name: str) -> None:
    index = EXAMPLES[name][1]()
    folds = make(name).split(index)
    assert len(folds) == 3
    for fold in folds:
        assert len(fold.train)
        assert len(fold.validation)
        assert set(fold.train) <= set(index.samples)
        assert set(fold.validation) <= set(index.samples)
        assert not set(fold.train) & set(fold.validation)


def test_preprocessing_never_sees_what_a_fold_is_validated_on(name: str) -> None:
    index = EXAMPLES[name][1]()
    for fold in make(name).split(index):
        ahead = range(1, index.horizon + 1) if index.horizon else [0]
        validated = {row + step for row in fold.validation for step in ahead}
        assert not set(fold.fit_rows) & validated
        assert set(fold.train) <= set(fold.fit_rows)


def test_the_same_seed_gives_the_same_folds(name: str) -> None:
    index = EXAMPLES[name][1]()
    for first, second in zip(make(name).split(index), make(name).split(index), strict=True):
        for part in ("fit_rows", "train", "validation"):
            np.testing.assert_array_equal(getattr(first, part), getattr(second, part))


def test_too_few_samples_are_refused_with_numbers(name: str) -> None:
    index = EXAMPLES[name][1]()
    few = SampleIndex(index.samples[:2], index.timestamps, index.step, index.horizon, index.labels)
    with pytest.raises(ValueError, match=r"\d+ .*(samples|folds)"):
        make(name, folds=5).split(few)


def test_no_training_target_reaches_the_validation_block() -> None:
    index = series_index()
    for gap in (0, 3):
        for fold in make("expanding", validation_steps=12, gap=gap).split(index):
            last_training_target = index.timestamps[fold.train + index.horizon].max()
            first_validation_target = index.timestamps[fold.validation + 1].min()
            assert last_training_target == first_validation_target - (gap + 1) * HOUR
            assert index.timestamps[fold.fit_rows].max() == last_training_target


def test_validation_blocks_are_consecutive_and_end_with_the_data() -> None:
    index = series_index()
    end = index.timestamps.max() + HOUR
    for k, fold in enumerate(make("expanding").split(index)):
        start = end - (3 - k) * 12 * HOUR
        assert index.timestamps[fold.validation + 1].min() == start
        assert index.timestamps[fold.validation + index.horizon].max() == start + 11 * HOUR


def test_training_expands_from_fold_to_fold() -> None:
    folds = make("expanding").split(series_index())
    for earlier, later in pairwise(folds):
        assert set(earlier.train) < set(later.train)
        assert set(earlier.fit_rows) < set(later.fit_rows)


def test_series_that_are_too_short_say_what_to_shorten() -> None:
    with pytest.raises(ValueError, match=r"fold 0 of 9 has 0 training .*span 100 steps: use fewer folds, a shorter"):
        make("expanding", folds=9).split(series_index())


@given(
    hours=st.integers(30, 60),
    entities=st.integers(1, 2),
    lookback=st.integers(1, 5),
    horizon=st.integers(1, 4),
    block=st.integers(4, 7),
    gap=st.integers(0, 2),
    folds=st.integers(1, 3),
)
def test_expanding_folds_never_overlap_in_time(
    hours: int, entities: int, lookback: int, horizon: int, block: int, gap: int, folds: int
) -> None:
    index = series_index(hours, entities, lookback, horizon)
    try:
        result = make("expanding", folds, validation_steps=block, gap=gap).split(index)
    except ValueError:
        return  # too short for these folds, which the error says
    for fold in result:
        seen = index.timestamps[fold.fit_rows].max()
        assert index.timestamps[fold.train + horizon].max() <= seen
        assert index.timestamps[fold.validation + 1].min() > seen + gap * HOUR


@pytest.mark.parametrize("scheme", KFOLDS)
def test_every_sample_is_validated_exactly_once(scheme: str) -> None:
    index = table_index()
    folds = make(scheme).split(index)
    assert sorted(np.concatenate([fold.validation for fold in folds])) == index.samples.tolist()
    for fold in folds:
        assert sorted([*fold.train, *fold.validation]) == index.samples.tolist()
        np.testing.assert_array_equal(fold.fit_rows, fold.train)


@pytest.mark.parametrize("scheme", KFOLDS)
def test_another_seed_shuffles_otherwise(scheme: str) -> None:
    index = table_index()
    first, second = (make(scheme, seed=seed).split(index)[0].validation for seed in (0, 1))
    assert set(first) != set(second)


@pytest.mark.parametrize("scheme", KFOLDS)
def test_one_fold_is_refused(scheme: str) -> None:
    with pytest.raises(ValueError, match="1 folds of 51 samples are impossible; allowed: 2 to the number of samples"):
        make(scheme, folds=1).split(table_index())
    assert SPLITTERS.get(scheme).min_folds == 2


def test_stratified_folds_keep_the_class_shares() -> None:
    index = table_index()
    assert index.labels is not None
    overall = np.mean(index.labels[index.samples] == "rare")
    for fold in make("stratified_kfold").split(index):
        assert abs(np.mean(index.labels[fold.validation] == "rare") - overall) <= 1 / len(fold.validation)


def test_a_class_rarer_than_the_folds_is_refused() -> None:
    index = table_index()
    assert index.labels is not None
    labels = np.where(np.arange(60) == 1, "single", index.labels)
    with pytest.raises(ValueError, match="the rarest class has 1 samples, fewer than the 3 folds; use fewer folds"):
        make("stratified_kfold").split(SampleIndex(index.samples, index.timestamps, index.step, 0, labels))
    with pytest.raises(ValueError, match="stratified_kfold needs class labels"):
        make("stratified_kfold").split(SampleIndex(index.samples, index.timestamps, index.step, 0))


def test_a_stored_fold_comes_back_as_it_was(tmp_path: Path) -> None:
    fold = Fold(np.array([3, 1, 2]), np.array([1, 2]), np.zeros(0, dtype=np.int64))
    StoredFold(fold, "digest").save(tmp_path)
    loaded = StoredFold.load(tmp_path)
    assert loaded.config_digest == "digest"
    for part in ("fit_rows", "train", "validation"):
        stored = getattr(loaded.fold, part)
        np.testing.assert_array_equal(stored, getattr(fold, part))
        assert stored.dtype == np.int64
