"""What single splitters promise beyond the contract."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as drawn_with
from hypothesis import strategies as st

from mlplatform.config import ConfigError, ExperimentConfig
from mlplatform.datamodule.factory import create_data_module
from mlplatform.datamodule.folds import Fold, SampleIndex, Splitter, StoredFold
from mlplatform.plugins import SPLITTERS
from mlplatform.settings import Settings
from mlplatform.testing.experiments import pump_config, pump_frame, pump_module, pump_settings
from mlplatform.testing.sample_indices import HOUR, fleet_index, series_index, table_index
from mlplatform.training.cross_validation import fit_preprocessor
from mlplatform.training.leakage import find_leaks

BY_TIME = ("expanding", "sliding")
KFOLDS = ("kfold", "stratified_kfold")
BY_GROUP = ("group_kfold", "stratified_group_kfold")


def make(name: str, folds: int = 3, seed: int = 0, **params: Any) -> Splitter:
    plugin = SPLITTERS.get(name)
    splitter: Splitter = plugin(plugin.Params.model_validate(params or plugin.example_params()), folds, seed)
    return splitter


@pytest.mark.parametrize("scheme", BY_TIME)
def test_no_training_target_reaches_the_validation_block(scheme: str) -> None:
    index = series_index()
    window = {"train_steps": 30} if scheme == "sliding" else {}
    for gap in (0, 3):
        for fold in make(scheme, validation_steps=12, gap=gap, **window).split(index):
            last_training_target = index.timestamps[fold.train + index.horizon].max()
            first_validation_target = index.timestamps[fold.validation + 1].min()
            assert last_training_target == first_validation_target - (gap + 1) * HOUR
            assert index.timestamps[fold.fit_rows].max() == last_training_target


@pytest.mark.parametrize("scheme", BY_TIME)
def test_validation_blocks_are_consecutive_and_end_with_the_data(scheme: str) -> None:
    index = series_index()
    end = index.timestamps.max() + HOUR
    for k, fold in enumerate(make(scheme).split(index)):
        start = end - (3 - k) * 12 * HOUR
        assert index.timestamps[fold.validation + 1].min() == start
        assert index.timestamps[fold.validation + index.horizon].max() == start + 11 * HOUR


@pytest.mark.parametrize("scheme", BY_TIME)
def test_with_overlap_every_forecast_that_begins_in_a_block_validates(scheme: str) -> None:
    index = series_index()
    end = index.timestamps.max() + HOUR
    window = {"train_steps": 30} if scheme == "sliding" else {}
    # Blocks as long as the horizon have one whole forecast of every series each.
    plain, overlapping = (
        make(scheme, validation_steps=index.horizon, overlap=overlap, **window).split(index)
        for overlap in (False, True)
    )
    for k, (without, fold) in enumerate(zip(plain, overlapping, strict=True)):
        starts = np.unique(index.timestamps[fold.validation + 1])
        begin = end - (3 - k) * index.horizon * HOUR
        assert starts[0] == begin
        assert len(starts) == (index.horizon if k < 2 else 1)
        assert len(np.unique(index.timestamps[without.validation])) == 1
        np.testing.assert_array_equal(fold.train, without.train)
        np.testing.assert_array_equal(fold.fit_rows, without.fit_rows)


def test_training_expands_from_fold_to_fold() -> None:
    folds = make("expanding").split(series_index())
    for earlier, later in pairwise(folds):
        assert set(earlier.train) < set(later.train)
        assert set(earlier.fit_rows) < set(later.fit_rows)


def test_series_that_are_too_short_say_what_to_shorten() -> None:
    with pytest.raises(ValueError, match=r"fold 0 of 9 has 0 training .*span 100 steps: use fewer folds, a shorter"):
        make("expanding", folds=9).split(series_index())


def test_sliding_windows_have_one_length_and_move_with_their_block() -> None:
    index = series_index()
    starts = []
    for fold in make("sliding").split(index):
        times = index.timestamps[fold.fit_rows]
        assert times.max() - times.min() == 29 * HOUR
        assert index.timestamps[fold.train].min() == times.min()
        starts.append(times.min())
    assert [later - earlier for earlier, later in pairwise(starts)] == [12 * HOUR, 12 * HOUR]


def test_an_expanding_window_stops_growing_at_its_greatest_length() -> None:
    index = series_index()
    free = make("expanding", validation_steps=12).split(index)
    capped = make("expanding", validation_steps=12, max_train_steps=70).split(index)
    lengths = [len(np.unique(index.timestamps[fold.fit_rows])) for fold in capped]
    assert lengths == [64, 70, 70]
    np.testing.assert_array_equal(free[0].train, capped[0].train)
    for before, after in zip(free, capped, strict=True):
        np.testing.assert_array_equal(before.validation, after.validation)
        assert set(after.train) <= set(before.train)


def test_a_window_that_does_not_fit_says_what_is_needed_and_there() -> None:
    with pytest.raises(ValueError, match=r"3 folds need 119 steps \(80 of training, 3 of gap and 12 .*span 100 steps"):
        make("sliding", train_steps=80, validation_steps=12, gap=3).split(series_index())


@given(
    hours=st.integers(30, 60),
    entities=st.integers(1, 2),
    lookback=st.integers(1, 5),
    horizon=st.integers(1, 4),
    block=st.integers(4, 7),
    gap=st.integers(0, 2),
    folds=st.integers(1, 3),
    train_steps=st.none() | st.integers(5, 30),
    scheme=st.sampled_from(BY_TIME),
    overlap=st.booleans(),
)
def test_folds_by_time_never_overlap_and_keep_to_their_window(
    hours: int,
    entities: int,
    lookback: int,
    horizon: int,
    block: int,
    gap: int,
    folds: int,
    train_steps: int | None,
    scheme: str,
    overlap: bool,
) -> None:
    index = series_index(hours, entities, lookback, horizon)
    if scheme == "sliding" and train_steps is None:
        train_steps = 5
    limit = {"train_steps" if scheme == "sliding" else "max_train_steps": train_steps}
    try:
        result = make(scheme, folds, validation_steps=block, gap=gap, overlap=overlap, **limit).split(index)
    except ValueError:
        return  # too short for these folds, which the error says
    for fold in result:
        times = index.timestamps[fold.fit_rows]
        assert index.timestamps[fold.train + horizon].max() <= times.max()
        assert index.timestamps[fold.validation + 1].min() > times.max() + gap * HOUR
        assert set(fold.train) <= set(fold.fit_rows)
        # Every origin between the two sides is purged: its first target is training's, its last is not.
        purged = np.setdiff1d(index.samples[index.timestamps[index.samples] >= times.min()], fold.train)
        assert (index.timestamps[purged + horizon] > times.max()).all()
        if train_steps is not None:
            assert times.max() - times.min() < train_steps * HOUR


# The first draw loads scikit-learn.
@drawn_with(deadline=None)
@given(
    rows=st.integers(8, 60),
    groups=st.integers(2, 12),
    classes=st.integers(1, 3),
    folds=st.integers(2, 5),
    seed=st.integers(0, 3),
    scheme=st.sampled_from((*KFOLDS, *BY_GROUP)),
    data=st.data(),
)
def test_kfolds_validate_every_sample_once_and_repeat_by_seed(
    rows: int, groups: int, classes: int, folds: int, seed: int, scheme: str, data: st.DataObject
) -> None:
    drawn = {
        name: np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=rows, max_size=rows)))
        for name, count in (("group", groups), ("label", classes))
    }
    moments = np.full(rows, np.datetime64("2000-01-01", "ns"))
    samples = np.flatnonzero(np.arange(rows) % 5 != 4)
    index = SampleIndex(samples, moments, np.timedelta64(0), 0, drawn["label"].astype(object), drawn["group"])
    try:
        result = make(scheme, folds, seed).split(index)
    except ValueError:
        return  # fewer samples, groups or members of a class than folds, which the error says
    assert sorted(np.concatenate([fold.validation for fold in result])) == samples.tolist()
    for fold, again in zip(result, make(scheme, folds, seed).split(index), strict=True):
        assert sorted([*fold.train, *fold.validation]) == samples.tolist()
        np.testing.assert_array_equal(fold.validation, again.validation)
        if scheme in BY_GROUP:
            assert not set(drawn["group"][fold.train]) & set(drawn["group"][fold.validation])
        if scheme == "stratified_kfold":
            for label in range(classes):
                overall = (drawn["label"][samples] == label).sum() / folds
                assert abs((drawn["label"][fold.validation] == label).sum() - overall) < 1


def test_whole_entities_of_a_forecast_are_held_out() -> None:
    index = fleet_index()
    assert index.groups is not None
    held_out = []
    for fold in make("group_kfold").split(index):
        units = set(index.groups[fold.validation])
        held_out += sorted(units)
        assert len(units) == 2
        assert not units & set(index.groups[fold.train])
        # Preprocessing sees the other entities from their first row to their last.
        np.testing.assert_array_equal(fold.fit_rows, np.flatnonzero(~np.isin(index.groups, list(units))))
    assert sorted(held_out) == [f"unit {k}" for k in range(6)]


def test_groups_of_different_sizes_are_spread_evenly() -> None:
    sizes = [30, 20, 10, 10, 10, 10]
    groups = np.repeat(np.arange(6), sizes)
    moments = np.full(90, np.datetime64("2000-01-01", "ns"))
    index = SampleIndex(np.arange(90), moments, np.timedelta64(0), 0, groups=groups)
    for seed in range(5):
        assert [len(fold.validation) for fold in make("group_kfold", seed=seed).split(index)] == [30, 30, 30]


def test_stratified_groups_keep_the_class_shares_as_nearly_as_groups_allow() -> None:
    rows = 120
    groups = np.repeat(np.arange(24), 5)
    labels = np.where(groups % 3 == 0, "rare", "common").astype(object)
    moments = np.full(rows, np.datetime64("2000-01-01", "ns"))
    index = SampleIndex(np.arange(rows), moments, np.timedelta64(0), 0, labels, groups)
    for fold in make("stratified_group_kfold", folds=4).split(index):
        assert (labels[fold.validation] == "rare").sum() == 10


@pytest.mark.parametrize("scheme", BY_GROUP)
def test_splitters_by_groups_need_enough_of_them(scheme: str) -> None:
    index = table_index()
    assert index.groups is not None
    few = replace(index, groups=np.where(np.arange(60) % 2, "left", "right"))
    with pytest.raises(ValueError, match="3 folds of 2 groups are impossible; allowed: 2 to the number of groups"):
        make(scheme).split(few)
    with pytest.raises(ValueError, match="needs the group of every row"):
        make(scheme).split(replace(index, groups=None))
    with pytest.raises(ValueError, match="stratified_group_kfold needs class labels"):
        make("stratified_group_kfold").split(replace(index, labels=None))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return pump_settings(tmp_path_factory.mktemp("pump"))


def scheme_config(settings: Settings, scheme: str, *overrides: str, **params: Any) -> ExperimentConfig:
    """Return the pump experiment with another splitter."""
    removed = [] if "validation_steps" in params else ["~split.cv.params.validation_steps"]
    given = [f"++split.cv.params.{key}={value}" for key, value in params.items()]
    return pump_config(settings, f"split.cv.name={scheme}", *removed, *given, *overrides)


class TestGroupsOfData:
    """From the dataset's column, or its entities, to the splitter."""

    def test_the_entity_is_the_default_and_forecasts_train_on_the_others(self, settings: Settings) -> None:
        module = pump_module(scheme_config(settings, "group_kfold"))
        held_out = [set(module.panel.row_entities[fold.validation].tolist()) for fold in module.folds()]
        assert sorted(map(tuple, held_out)) == [(1,), (2,)]

    def test_a_column_of_the_dataset_can_group_without_being_a_feature(self, settings: Settings) -> None:
        config = scheme_config(settings, "group_kfold", "features.columns=[flow, heat]", column="state")
        frame = pump_frame(units=(1, 2, 3, 4))
        frame["state"] = np.where(frame["entity_id"] <= 2, "old", "new").astype(object)
        module = create_data_module(config, frame)
        assert "state" not in module.panel.columns
        for fold in module.folds():
            assert set(module.panel.row_entities[fold.validation].tolist()) in ({1, 2}, {3, 4})

    def test_a_column_that_changes_within_an_entity_cannot_group_a_forecast(self, settings: Settings) -> None:
        config = scheme_config(settings, "group_kfold", column="state")
        with pytest.raises(
            ValueError, match=r"entity .*1.* changes from group 'shut' to 'open' at 2024-01-01.*constant"
        ):
            pump_module(config)

    def test_rows_without_a_group_are_refused(self, settings: Settings) -> None:
        config = scheme_config(settings, "group_kfold", column="state")
        with pytest.raises(ValueError, match="300 of 300 rows have no 'state', so group_kfold cannot tell"):
            create_data_module(config, pump_frame().assign(state=None))

    @pytest.mark.parametrize("column", ["no_such", "heat"])
    def test_only_a_column_of_the_dataset_that_is_no_target_can_group(self, settings: Settings, column: str) -> None:
        with pytest.raises(
            ConfigError, match=f"split.cv.params.column names '{column}'.*allowed: flow, state, or null"
        ):
            scheme_config(settings, "group_kfold", column=column)

    def test_folds_by_groups_and_by_sliding_windows_pass_the_leakage_check(self, settings: Settings) -> None:
        for config in (
            scheme_config(settings, "group_kfold"),
            scheme_config(settings, "sliding", train_steps=60, validation_steps=24),
            scheme_config(settings, "expanding", max_train_steps=50, validation_steps=24),
        ):
            module = pump_module(config)
            # A hole at the start of a window is filled from the row before it, which is known history.
            heat = module.panel.columns["heat"].copy()
            heat[[fold.fit_rows.min() for fold in module.folds() if fold.fit_rows.min()]] = np.nan
            module.panel = module.panel.with_columns({**module.panel.columns, "heat": heat})
            for fold in module.folds():
                assert find_leaks(module, fold, fit_preprocessor(module, fold.fit_rows)) == []

    def test_the_leakage_check_finds_a_group_on_both_sides(self, settings: Settings) -> None:
        module = pump_module(scheme_config(settings, "group_kfold"))
        fold = module.folds()[0]
        mixed = replace(fold, train=np.append(fold.train, fold.validation[0]))
        (leak,) = find_leaks(module, mixed, fit_preprocessor(module, fold.fit_rows))
        assert leak.startswith("1 groups are on both sides of the fold: ")
        wide = replace(fold, fit_rows=np.append(fold.fit_rows, fold.validation[0] - 11))
        leaks = find_leaks(module, wide, fit_preprocessor(module, wide.fit_rows))
        assert "validation rows are among the rows that preprocessing was fitted on" in leaks


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
