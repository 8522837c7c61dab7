"""The thermal model against closed forms of its equations."""

from __future__ import annotations

import numpy as np
import pytest

from mlplatform.data.thermal import (
    FANS_START_C,
    FANS_STOP_C,
    ONAF,
    ONAN,
    SUB_STEP_MINUTES,
    Bool,
    CoolingStage,
    Float64,
    Temperatures,
    simulate_temperatures,
)


def run(load: Float64, step_minutes: float = 60.0, usable: Bool | None = None, rise: float = 1.0) -> Temperatures:
    """One transformer at 20 °C; without `usable` the fans never start."""
    column = load[:, None]
    fans = np.zeros_like(column, dtype=bool) if usable is None else usable[:, None]
    return simulate_temperatures(column, np.full_like(column, 20.0), step_minutes, fans, np.full_like(column, rise))


def step_up(rows: int, low: float = 0.3, high: float = 0.6) -> Float64:
    return np.concatenate([[low], np.full(rows, high)])


@pytest.mark.parametrize("step_minutes", [5.0, 60.0])
def test_a_load_step_follows_the_exponential_within_one_percent(step_minutes: float) -> None:
    result = run(step_up(int(600 / step_minutes)), step_minutes)
    minutes = step_minutes * np.arange(len(result.top_oil_c))
    start, end = (20.0 + ONAN.steady_top_oil_rise(np.array(load)) for load in (0.3, 0.6))
    expected = end + (start - end) * np.exp(-minutes / (ONAN.k11 * ONAN.oil_minutes))
    np.testing.assert_allclose(result.top_oil_c[:, 0], expected, atol=0.01 * float(end - start))


def test_the_hot_spot_follows_both_exponentials_within_one_percent() -> None:
    result = run(step_up(120), 5.0)
    minutes = 5.0 * np.arange(121)
    gradient = [ONAN.gradient_k * load**ONAN.winding_exponent for load in (0.3, 0.6)]
    change = gradient[1] - gradient[0]
    fast = ONAN.k21 * (1.0 - np.exp(-minutes / (ONAN.k22 * ONAN.winding_minutes)))
    slow = (ONAN.k21 - 1.0) * (1.0 - np.exp(-minutes * ONAN.k22 / ONAN.oil_minutes))
    expected = gradient[0] + change * (fast - slow)
    found = (result.hot_spot_c - result.top_oil_c)[:, 0]
    np.testing.assert_allclose(found, expected, atol=0.01 * change * ONAN.k21)
    assert found.max() > gradient[1] * 1.02  # the overshoot that the two-part gradient is there for


def test_the_steady_state_is_the_standard_formula() -> None:
    assert float(ONAF.steady_top_oil_rise(np.array(1.0))) == pytest.approx(52.0)
    assert float(ONAF.steady_top_oil_rise(np.array(0.5))) == pytest.approx(52.0 * (2.5 / 7.0) ** 0.8)
    assert float(ONAN.steady_top_oil_rise(np.array(0.7))) == pytest.approx(52.0)
    result = run(np.full(50, 0.6))
    assert result.hot_spot_c[-1, 0] - result.top_oil_c[-1, 0] == pytest.approx(26.0 * 0.6**1.3)


@pytest.mark.parametrize("stage", [ONAN, ONAF])
def test_the_sub_step_is_at_most_half_the_smallest_time_constant(stage: CoolingStage) -> None:
    assert min(*stage.time_constants, stage.winding_minutes) / 2 >= SUB_STEP_MINUTES


def test_fans_start_hot_stop_cool_and_keep_their_state_between() -> None:
    load = np.concatenate([np.full(12, 0.75), np.full(30, 0.35)])
    result = run(load, 15.0, np.ones(42, dtype=bool))
    before = np.concatenate([result.top_oil_c[:1], result.top_oil_c[:-1]])[1:, 0]
    fans, previous = result.is_fans_on[1:, 0], result.is_fans_on[:-1, 0]
    assert fans.any()
    assert not fans[-1]
    assert (before[fans & ~previous] > FANS_START_C).all()
    assert (before[~fans & previous] <= FANS_STOP_C).all()
    between = (before > FANS_STOP_C) & (before <= FANS_START_C)
    assert between.any()
    np.testing.assert_array_equal(fans[between], previous[between])


def test_fans_cool_and_fouling_heats() -> None:
    load = np.full(48, 0.8)
    hot, cooled, fouled = run(load), run(load, usable=np.ones(48, dtype=bool)), run(load, rise=1.3)
    assert cooled.top_oil_c[-1, 0] < hot.top_oil_c[-1, 0] - 10.0
    assert fouled.top_oil_c[-1, 0] - 20.0 == pytest.approx(1.3 * (hot.top_oil_c[-1, 0] - 20.0))


def test_one_long_row_equals_many_short_ones() -> None:
    long, short = run(step_up(10), 60.0), run(step_up(120), 5.0)
    np.testing.assert_allclose(long.top_oil_c[1:, 0], short.top_oil_c[12::12, 0])
