"""Calibrated p-values: as often small as they say on series of any memory, and small where something changed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.signal import lfilter

from mlplatform.monitoring.calibration import Design, correlations, discoveries, predict

WINDOW, STEPS, SERIES = 7, 24, 400


def blocks(memory: float, days: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """Return daily means of stationary hourly AR(1) series of unit variance, of shape (days, series)."""
    shocks = np.random.default_rng(seed).standard_normal(((days + 60) * STEPS, SERIES)) * np.sqrt(1 - memory**2)
    values = lfilter([1.0], [1.0, -memory], shocks, axis=0)[60 * STEPS :]
    return np.asarray(values.reshape(days, STEPS, SERIES).mean(axis=1))


def p_values(memory: float, days: int, shift: float = 0.0) -> npt.NDArray[np.float64]:
    values = blocks(memory, days + WINDOW)
    design = Design(np.arange(days), np.arange(days, days + WINDOW))
    return np.array([predict(series[:days], series[days:].mean() + shift, design).p for series in values.T])


@pytest.mark.parametrize("weeks", [12, 52])
@pytest.mark.parametrize("memory", [0.0, 0.9, 0.97, 0.99])
def test_p_values_are_as_small_as_they_say_whatever_the_memory(memory: float, weeks: int) -> None:
    p = p_values(memory, weeks * 7)
    # Three standard deviations of a share of 400 around 5 % and 1 %.
    assert 0.02 < np.mean(p <= 0.05) < 0.083
    assert np.mean(p <= 0.01) < 0.028


def test_a_shift_is_found_as_often_as_its_information_allows() -> None:
    # The mean of a week of AR(.9) has a standard deviation of .336: a shift of one is found in 84 % at best.
    assert np.mean(p_values(0.9, 364, shift=1.0) <= 0.05) > 0.8
    assert np.mean(p_values(0.9, 84, shift=2.0) <= 0.01) > 0.95


def test_too_little_history_is_no_verdict() -> None:
    values = blocks(0.99, 35)
    design = Design(np.arange(28), np.arange(28, 35))
    p = np.array([predict(series[:28], series[28:].mean(), design).p for series in values.T])
    assert np.mean(np.isnan(p)) > 0.4
    # What is said all the same is said of series whose memory looks short, and holds.
    assert np.mean(p <= 0.05) < 0.083


def test_a_trend_in_the_design_is_not_a_change() -> None:
    days = 84
    slope = np.arange(days + WINDOW) * 0.05
    values = blocks(0.9, days + WINDOW) + slope[:, None]
    place = np.arange(days + WINDOW)[:, None].astype(np.float64)
    times, target = np.arange(days), np.arange(days, days + WINDOW)
    flat, trend = Design(times, target), Design(times, target, place[:days], place[days:])
    shares = [
        np.mean([predict(s[:days], s[days:].mean(), design).p <= 0.05 for s in values.T]) for design in (flat, trend)
    ]
    assert shares[0] > 0.3
    assert shares[1] < 0.083
    assert np.median([trend.last_coefficient(series[:days]) for series in values.T]) < 0.01
    assert np.mean([trend.last_coefficient(series[:days] - slope[:days]) <= 0.05 for series in values.T]) < 0.083


def test_windows_as_extreme_in_the_training_rows_bound_the_p_value() -> None:
    # One bad week in a year is no rarity for a week: 7 of 358 windows reach it, wholly or in part.
    series = np.random.default_rng(0).standard_normal(364) * 0.1
    series[100:107] += 5.0
    design = Design(np.arange(364), np.arange(364, 371))
    assert predict(series, 4.0, design).p > 1 / 358
    assert predict(series, 20.0, design).p < 1e-6


def test_a_distance_is_unusual_in_one_direction_only() -> None:
    series = np.random.default_rng(0).standard_normal(100)
    design = Design(np.arange(100), np.array([100]))
    assert predict(series, -6.0, design, one_sided=True).p > 0.99
    assert predict(series, 6.0, design, one_sided=True).p < 1e-4


def test_a_constant_history_makes_any_change_certain() -> None:
    design = Design(np.arange(50), np.arange(50, 57))
    assert predict(np.zeros(50), 0.0, design).p == 1.0
    assert predict(np.zeros(50), 0.1, design).p == 0.0


@pytest.mark.parametrize("memory", [0.9, 0.99])
def test_correlations_are_those_of_block_means(memory: float) -> None:
    values = np.concatenate(list(blocks(memory, 364).T))
    values -= values.mean()
    found = [float(np.mean(values[lag:] * values[:-lag]) / np.mean(values**2)) for lag in (1, 2, 5)]
    assert correlations(found[0], np.array([0, 1, 2, 5])) == pytest.approx([1.0, *found], abs=0.03)


def test_discoveries_are_those_of_benjamini_and_hochberg() -> None:
    # The example of their paper (1995, section 3.2): 15 p-values of which four are rejected at 5 %.
    p = np.array([1, 4, 19, 95, 201, 278, 298, 344, 459, 3240, 4262, 5719, 6528, 7590, 10000]) / 10_000
    rejected, adjusted = discoveries(p, 0.05)
    assert rejected.sum() == 4
    assert adjusted[3] == pytest.approx(15 * 0.0095 / 4)
    hidden = np.append(p, np.nan)
    assert discoveries(hidden, 0.05)[0].tolist() == [*rejected.tolist(), False]


def test_weights_share_out_the_level() -> None:
    p = np.array([0.03, 0.9])
    assert not discoveries(p, 0.05)[0].any()
    assert discoveries(p, 0.05, np.array([9.0, 1.0]))[0].tolist() == [True, False]
    assert not discoveries(p, 0.05, np.array([1.0, 9.0]))[0].any()
