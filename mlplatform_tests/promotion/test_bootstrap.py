"""The paired bootstrap: right intervals for dependent errors, the same answer for means and for whole metrics."""

from __future__ import annotations

import numpy as np
import pytest

from mlplatform.plugins import METRICS
from mlplatform.promotion.bootstrap import (
    block_length,
    compare_losses,
    compare_scores,
    draw_units,
    forecast_units,
    row_units,
)

HOURS = np.arange(400).astype("datetime64[h]")


def test_equal_losses_are_a_toss_up_and_a_shift_is_certain() -> None:
    losses = np.random.default_rng(0).exponential(size=300)
    same = compare_losses(losses, losses, row_units(300))
    assert (same.effect, same.low, same.high, same.probability) == (0, 0, 0, 0.5)
    better = compare_losses(losses - 0.5, losses, row_units(300))
    assert (better.effect, better.probability) == (pytest.approx(-0.5), 1.0)


def test_the_interval_of_independent_rows_is_the_normal_one() -> None:
    noise = np.random.default_rng(1).normal(size=2000)
    found = compare_losses(noise, np.zeros(2000), row_units(2000))
    assert found.high - found.low == pytest.approx(2 * 1.96 / np.sqrt(2000), rel=0.1)


def test_dependent_errors_make_the_interval_as_wide_as_it_is() -> None:
    noise = np.random.default_rng(2).normal(size=4000)
    series = np.convolve(noise, np.ones(24) / 24, "valid")[: len(HOURS) * 9]
    times = np.arange(len(series)).astype("datetime64[h]")
    found = compare_losses(series, np.zeros(len(series)), forecast_units(times, np.ones(len(series)), 24))
    assert found.block_length >= 24
    # A mean of 24 neighbours leaves the variance of the whole mean as it was.
    assert found.high - found.low == pytest.approx(2 * 1.96 / np.sqrt(len(series)), rel=0.3)


def test_entities_of_a_step_are_drawn_together() -> None:
    # Fifty entities with the same errors tell no more than one.
    errors = np.random.default_rng(3).normal(size=400)
    one = compare_losses(errors, np.zeros(400), forecast_units(HOURS, np.zeros(400), 1))
    units = forecast_units(np.tile(HOURS, 50), np.repeat(np.arange(50), 400), 1)
    many = compare_losses(np.tile(errors, 50), np.zeros(20000), units)
    assert (many.low, many.high) == (pytest.approx(one.low), pytest.approx(one.high))


def test_entities_are_drawn_where_there_are_too_few_blocks() -> None:
    units = forecast_units(np.tile(HOURS[:30], 20), np.repeat(np.arange(20), 30), 24)
    assert (units.kind, units.count) == ("entity", 20)


def test_a_whole_metric_agrees_with_its_losses_where_it_is_a_mean() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.exponential(1.0, 300), rng.exponential(1.05, 300)
    means = compare_losses(a, b, row_units(300))
    whole = compare_scores((lambda i: float(a[i].mean()), lambda i: float(b[i].mean())), a - b, row_units(300))
    assert whole.effect == pytest.approx(means.effect)
    assert whole.probability == pytest.approx(means.probability, abs=0.08)


def test_blocks_are_neighbours_and_every_unit_is_drawn_equally_often() -> None:
    drawn = draw_units(50, 7, 4000, np.random.default_rng(5))
    assert drawn.shape == (4000, 50)
    assert ((drawn[:, 1:7] - drawn[:, :6]) % 50 == 1).all()
    counts = np.bincount(drawn.ravel(), minlength=50)
    assert counts.max() / counts.min() < 1.1


def test_the_same_seed_gives_the_same_answer() -> None:
    losses = np.random.default_rng(6).normal(size=(2, 100))
    first, again = (compare_losses(losses[0], losses[1], row_units(100), seed=3) for _ in range(2))
    assert first == again


def test_block_lengths_grow_with_dependence() -> None:
    noise = np.random.default_rng(7).normal(size=2000)
    slow = np.convolve(noise, 0.9 ** np.arange(60), "valid")
    assert block_length(noise) < 6 < block_length(slow)


@pytest.mark.parametrize("name", [name for name, metric in METRICS if metric.mean_of and metric.reads is None])
def test_metrics_are_the_mean_of_what_they_say(name: str) -> None:
    metric, rng = METRICS.get(name), np.random.default_rng(8)
    if "classification" in metric.tasks:
        truth = rng.integers(0, 3, 60).astype(np.float32)
        answers = rng.dirichlet(np.ones(3), 60).astype(np.float32)
    else:
        truth, answers = rng.normal(size=(2, 60, 4, 2)).astype(np.float32)
    assert metric.mean_of is not None
    values = metric.mean_of(truth, answers)
    assert values.shape == (60,)
    assert values.mean() == pytest.approx(metric.score(truth, answers), rel=1e-5)
