"""Samples: windows, lags and origins equal what plain loops cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.datamodule.panel import Panel
from mlplatform.datamodule.samples import TabularSamples, WindowSamples, complete_origins, last_origins


def panel_of(series: list[np.ndarray]) -> Panel:
    """A panel with one column `y` from one array per entity."""
    hours = [np.datetime64("2024-01-01", "ns") + np.arange(len(one)) * np.timedelta64(1, "h") for one in series]
    return Panel(
        columns={"y": np.concatenate(series).astype(np.float32)},
        timestamps=np.concatenate(hours),
        entity_ids=np.arange(len(series)),
        offsets=np.concatenate([[0], np.cumsum([len(one) for one in series])]).astype(np.int64),
    )


@st.composite
def windows(draw: st.DrawFn) -> WindowSamples:
    lookback, horizon = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rows = draw(st.integers(lookback + horizon, 20))
    channels = draw(st.integers(1, 3))
    targets = draw(st.lists(st.integers(0, channels - 1), min_size=1, max_size=channels, unique=True))
    origins = draw(st.lists(st.integers(lookback - 1, rows - horizon - 1), max_size=6))
    return WindowSamples(
        values=np.random.default_rng(0).normal(size=(rows, channels)).astype(np.float32),
        timestamps=np.datetime64("2024-01-01", "ns") + np.arange(rows) * np.timedelta64(1, "h"),
        origins=np.array(origins, dtype=np.int64),
        channels=tuple("abc"[:channels]),
        targets=tuple(targets),
        lookback=lookback,
        horizon=horizon,
    )


@given(windows(), st.data())
def test_windows_equal_plain_loops(samples: WindowSamples, data: st.DataObject) -> None:
    inputs, outputs = samples.inputs(), samples.outputs()
    assert inputs.shape == (len(samples), samples.lookback, len(samples.channels))
    assert outputs.shape == (len(samples), samples.horizon, len(samples.targets))
    lags = data.draw(st.lists(st.integers(0, samples.lookback - 1), min_size=1, max_size=3))
    for position, origin in enumerate(samples.origins):
        for step in range(samples.lookback):
            assert inputs[position, step].tolist() == samples.values[origin - samples.lookback + 1 + step].tolist()
        for step in range(samples.horizon):
            for column, target in enumerate(samples.targets):
                assert outputs[position, step, column] == samples.values[origin + 1 + step, target]
        for channel in range(len(samples.channels)):
            expected = [samples.values[origin - lag, channel] for lag in lags]
            assert samples.lags(channel, lags)[position].tolist() == expected
        assert samples.origin_times[position] == samples.timestamps[origin]


@given(windows())
def test_a_batch_is_a_part_of_the_whole(samples: WindowSamples) -> None:
    half = len(samples) // 2
    np.testing.assert_array_equal(samples.inputs(slice(half, None)), samples.inputs()[half:])
    np.testing.assert_array_equal(samples.outputs(slice(0, half)), samples.outputs()[:half])
    chosen = np.arange(len(samples))[::2]
    np.testing.assert_array_equal(samples.inputs(chosen), samples.select(chosen).inputs())


def small() -> WindowSamples:
    values = np.arange(20, dtype=np.float32).reshape(10, 2)
    times = np.datetime64("2024-01-01", "ns") + np.arange(10) * np.timedelta64(1, "h")
    return WindowSamples(values, times, np.array([3, 4, 5]), ("a", "b"), (1,), 4, 2)


def test_a_lag_behind_the_window_or_in_the_future_is_refused() -> None:
    with pytest.raises(ValueError, match="lag 4 reaches behind the lookback of 4 steps"):
        small().lags(0, [0, 4])
    with pytest.raises(ValueError, match="lag -1 reaches into the future; allowed: 0 to 3"):
        small().lags(0, [0, -1])


def test_selected_samples_share_the_values_but_not_the_cache() -> None:
    samples = small()
    samples.cache["features"] = "of all samples"
    for chosen in (np.array([2, 0]), np.array([True, False, True])):
        selected = samples.select(chosen)
        assert selected.cache == {}
        assert selected.values is samples.values
    assert samples.select(np.array([2, 0])).origins.tolist() == [5, 3]


def test_selected_tabular_samples_keep_rows_and_labels_together() -> None:
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    samples = TabularSamples(values, np.array([7, 8, 9], dtype=np.float32), ("a", "b"), cache={"key": "value"})
    selected = samples.select(np.array([2, 0]))
    assert selected.values.tolist() == [[4, 5], [0, 1]]
    assert selected.labels.tolist() == [9, 7]
    assert (len(selected), selected.cache) == (2, {})
    unlabelled = TabularSamples(values, np.zeros(0, dtype=np.float32), ("a", "b"))
    assert len(unlabelled.select(np.array([1])).labels) == 0


@given(
    st.lists(st.lists(st.sampled_from([1.0, 2.0, np.nan, np.inf]), min_size=1, max_size=12), min_size=1, max_size=4),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_complete_origins_equal_a_brute_force_search(series: list[list[float]], lookback: int, horizon: int) -> None:
    panel = panel_of([np.array(one) for one in series])
    expected = []
    for start, end in zip(panel.offsets[:-1], panel.offsets[1:], strict=True):
        for origin in range(start, end):
            future = panel.columns["y"][origin + 1 : min(origin + 1 + horizon, end)].astype(np.float64)
            if origin - lookback + 1 >= start and len(future) == horizon and np.isfinite(future).all():
                expected.append(origin)
    assert complete_origins(panel, ["y"], lookback, horizon).tolist() == expected


def test_every_target_must_be_observed() -> None:
    panel = panel_of([np.zeros(6)])
    panel = panel.with_columns({"y": panel.columns["y"], "z": np.array([0, 0, 0, 0, np.nan, 0], dtype=np.float32)})
    assert complete_origins(panel, ["y"], 2, 1).tolist() == [1, 2, 3, 4]
    assert complete_origins(panel, ["y", "z"], 2, 1).tolist() == [1, 2, 4]


def test_the_last_origins_end_every_entity() -> None:
    assert last_origins(panel_of([np.zeros(3), np.zeros(1), np.zeros(4)])).tolist() == [2, 3, 7]
