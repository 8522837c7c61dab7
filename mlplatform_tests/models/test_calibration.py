"""Calibration: margins from held-out residuals, in units of how much a window moves, and the coverage they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mlplatform.config import bound_levels
from mlplatform.datamodule.samples import TabularSamples, WindowSamples
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.models.base import create_model, load_model, save_model
from mlplatform.models.calibration import (
    LEAST_DIFFICULTY,
    Bounds,
    Calibration,
    Difficulty,
    Intervals,
    difficulty,
)
from mlplatform.testing.model_samples import spec_for, windows

LOOKBACK, HORIZON = 24, 4


def table(labels: np.ndarray) -> TabularSamples:
    return TabularSamples(np.zeros((len(labels), 1), np.float32), labels.astype(np.float32), ("a",))


def points(values: np.ndarray) -> Intervals:
    values = values.astype(np.float32)
    return Intervals(values, values, values)


def walk(seed: int, size: float, rows: int = 1500) -> WindowSamples:
    """Return windows over a random walk whose steps have the given size."""
    values = np.random.default_rng(seed).normal(0, size, rows).cumsum().astype(np.float32)[:, None]
    times = np.datetime64("2024-01-01", "ns") + np.arange(rows) * np.timedelta64(1, "h")
    origins = np.arange(LOOKBACK - 1, rows - HORIZON, dtype=np.int64)
    return WindowSamples(values, times, origins, ("a",), (0,), LOOKBACK, HORIZON)


def repeated(samples: WindowSamples) -> Intervals:
    last = samples.values[samples.origins]
    return points(np.repeat(last[:, None, :], HORIZON, axis=1))


def covered(samples: WindowSamples, intervals: Intervals) -> float:
    truth = samples.outputs()
    return float(np.mean((intervals.lower <= truth) & (truth <= intervals.upper)))


def test_the_margin_is_the_residual_of_the_corrected_rank() -> None:
    residuals = np.array([5, -1, 3, -2, 4, 6, -7, 8, 9])
    calibration = Calibration.fit(
        [(table(residuals[:4]), points(np.zeros(4))), (table(residuals[4:]), points(np.zeros(5)))], 0.8
    )
    # ceil(10 * 0.8) = 8: the eighth smallest of the nine absolute residuals
    assert calibration.margins == 8
    assert calibration.samples == 9


def test_too_few_samples_for_the_coverage_are_refused() -> None:
    with pytest.raises(ValueError, match=r"3 held-out samples are too few to calibrate .* coverage 0.8; at least 4"):
        Calibration.fit([(table(np.arange(3)), points(np.zeros(3)))], 0.8)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_new_samples_of_the_same_kind_are_covered_as_often_as_asked_for(coverage: float) -> None:
    noise = np.random.default_rng(0)
    calibration = Calibration.fit([(table(noise.gumbel(size=4000)), points(np.zeros(4000)))], coverage)
    fresh = noise.gumbel(size=4000)
    _, lower, upper, _ = calibration.apply(points(np.zeros(4000)), table(fresh))
    assert np.mean((lower <= fresh) & (fresh <= upper)) == pytest.approx(coverage, abs=0.03)


def test_intervals_learnt_on_a_restless_series_fit_a_calm_one() -> None:
    restless, calm = walk(0, size=5.0), walk(1, size=0.2)
    calibration = Calibration.fit([(restless, repeated(restless))], 0.8)
    intervals = calibration.apply(repeated(calm), calm)
    assert covered(calm, intervals) == pytest.approx(0.8, abs=0.06)
    # Without the windows' difficulty the margins of the restless series would cover everything.
    assert np.median(intervals.upper - intervals.lower) < 0.1 * np.median(
        np.subtract(*calibration.apply(repeated(restless), restless)[2:0:-1])
    )


def test_bounds_that_are_too_wide_are_narrowed_to_the_point_at_most() -> None:
    truth = np.random.default_rng(3).normal(size=2000)
    wide = Intervals(np.zeros(2000, np.float32), np.full(2000, -9, np.float32), np.full(2000, 9, np.float32))
    _, lower, upper, _ = Calibration.fit([(table(truth), wide)], 0.8).apply(wide, table(truth))
    assert np.mean((lower <= truth) & (truth <= upper)) == pytest.approx(0.8, abs=0.01)
    exact = Intervals(wide.point, wide.lower, wide.upper)
    _, lower, upper, _ = Calibration(0.8, np.float32(-20.0), 9).apply(exact, table(truth))
    assert (lower <= 0).all()
    assert (upper >= 0).all()


def test_the_difficulty_is_the_mean_change_over_a_horizon_inside_the_window() -> None:
    samples = walk(2, size=1.0, rows=60)
    found = difficulty(samples)
    for position, origin in enumerate(samples.origins):
        window = samples.values[origin - LOOKBACK + 1 : origin + 1, 0].astype(np.float64)
        assert found[position, 0, 0] == pytest.approx(np.abs(window[HORIZON:] - window[:-HORIZON]).mean(), rel=1e-5)
    one = replace(samples, origins=samples.origins[[7]], cache={})
    assert difficulty(one).tobytes() == found[[7]].tobytes()


def test_missing_values_and_still_windows_have_a_difficulty() -> None:
    samples = walk(2, size=1.0, rows=60)
    samples.values[10:15] = np.nan
    assert np.isfinite(difficulty(samples)).all()
    still = replace(samples, values=np.ones_like(samples.values), cache={})
    assert (difficulty(still) == np.float32(LEAST_DIFFICULTY)).all()


def test_a_stored_model_keeps_its_calibration_to_the_bit(tmp_path: Path) -> None:
    samples = windows()
    model = create_model("repeat_last", {}, spec_for("forecast"))
    with pytest.raises(ValueError, match="RepeatLast was not calibrated, so it has no prediction intervals"):
        model.predict_intervals(samples)
    model.calibration = Calibration.fit([(samples, model.predict_bounds(samples, 0.8))], 0.8, 0.5)
    save_model(model, "repeat_last", tmp_path / "model")
    stored, fitted = load_model(tmp_path / "model").predict_intervals(samples), model.predict_intervals(samples)
    assert stored.point.tobytes() == fitted.point.tobytes()
    for mine, other in zip(stored.bounds(0.8), fitted.bounds(0.8), strict=True):
        assert (mine.coverage, mine.lower.tobytes()) == (other.coverage, other.lower.tobytes())
        assert mine.upper.tobytes() == other.upper.tobytes()


@pytest.mark.parametrize("calibrate", [Calibration.fit, partial(Calibration.chosen, season=1)])
def test_several_coverages_are_each_kept_and_lie_in_one_another(calibrate: Callable[..., Calibration]) -> None:
    noise = np.random.default_rng(0)
    calibration = calibrate(folds_of(*noise.gumbel(size=(4, 1500))), 0.8, 0.5, 0.95)
    assert calibration.coverages == (0.8, 0.5, 0.95)
    fresh = noise.gumbel(size=4000)
    found = calibration.apply(points(np.zeros(4000)), table(fresh)).bounds(0.8)
    for lower, upper, coverage in found:
        assert np.mean((lower <= fresh) & (fresh <= upper)) == pytest.approx(coverage, abs=0.03)
    inner, middle, outer = sorted(found, key=lambda each: each.coverage)
    assert (outer.lower <= middle.lower).all()
    assert (middle.lower <= inner.lower).all()
    assert (inner.upper <= middle.upper).all()
    assert (middle.upper <= outer.upper).all()


def test_margins_are_raised_while_folds_left_out_are_covered_too_little() -> None:
    noise = np.random.default_rng(2)
    chosen, raised = (partial(Calibration.chosen, season=1, is_raised=each) for each in (False, True))
    # The second half of every year is restless: what was learnt from the other folds is never enough for it.
    years = folds_of(*(noise.normal(0, size, 1500) for size in (1, 2, 1, 2)))
    plain, wider = chosen(years, 0.8, 0.5), raised(years, 0.8, 0.5)
    for mine, other in zip((plain, *plain.others), (wider, *wider.others), strict=True):
        assert other.coverage == mine.coverage
        assert other.margins > mine.margins
    # Where folds are alike, hardly anything is added.
    alike = raised(folds_of(*noise.normal(size=(4, 4000))), 0.8)
    fresh = noise.normal(size=4000)
    _, lower, upper, _ = alike.apply(points(np.zeros(4000)), table(fresh))
    assert np.mean((lower <= fresh) & (fresh <= upper)) == pytest.approx(0.81, abs=0.02)
    # A single fold leaves nothing to be judged by, and few samples no room.
    one = folds_of(noise.normal(size=30))
    assert raised(one, 0.8).to_json() == chosen(one, 0.8).to_json()
    few = folds_of(*noise.normal(size=(2, 5)))
    assert raised(few, 0.8).samples == 10


def test_the_main_coverage_is_calibrated_as_if_it_were_the_only_one() -> None:
    folds = folds_of(*np.random.default_rng(1).normal(size=(3, 200)))
    alone, among = Calibration.fit(folds, 0.8), Calibration.fit(folds, 0.8, 0.5)
    assert replace(among, others=()).to_json() == alone.to_json()
    assert "others" not in alone.to_json()


def test_bounds_of_a_model_that_cross_are_widened_to_those_of_smaller_coverages() -> None:
    zeros = np.zeros(4, np.float32)
    # Its quantiles for 95 % are narrower than those for 50 %.
    bounds = Intervals(zeros, zeros - 2, zeros + 2, (Bounds(zeros - 1, zeros + 3, 0.95),))
    unmoved = Calibration(0.5, np.float32(0), 9, others=(Calibration(0.95, np.float32(0), 9),))
    main, wide = unmoved.apply(bounds, table(zeros)).bounds(0.5)
    assert (main.lower.tolist(), main.upper.tolist()) == ([-2] * 4, [2] * 4)
    assert (wide.lower.tolist(), wide.upper.tolist()) == ([-2] * 4, [3] * 4)


def test_a_further_coverage_that_samples_are_too_few_for_is_left_out() -> None:
    folds = folds_of(np.arange(9))
    assert Calibration.fit(folds, 0.8, 0.5, 0.95).coverages == (0.8, 0.5)
    assert Calibration.chosen(folds, 0.5, 0.95, season=1).coverages == (0.5,)


def test_bounds_of_a_coverage_are_the_quantiles_around_its_centre() -> None:
    assert bound_levels(0.8) == (0.1, 0.9)
    spec = ModelSpec("regression", ("a",), quantiles=(0.1, 0.5, 0.9))
    assert [spec.quantile_position(level) for level in (0.5, *bound_levels(0.8))] == [1, 0, 2]
    with pytest.raises(ValueError, match=r"quantile 0\.25 is not among"):
        spec.quantile_position(0.25)


def folds_of(*errors: np.ndarray) -> list[tuple[TabularSamples, Intervals]]:
    return [(table(each), points(np.zeros(len(each)))) for each in errors]


def test_errors_to_one_side_get_margins_of_their_own() -> None:
    noise = np.random.default_rng(4)
    skewed = folds_of(*(noise.exponential(size=600) for _ in range(3)))
    chosen = Calibration.chosen(skewed, 0.8, season=1)
    assert chosen.lower_margins is not None
    # The quantiles .1 and .9 of an exponential distribution; the bound below is one above the point prediction.
    assert -chosen.lower_margins == pytest.approx(-np.log(0.9), abs=0.05)
    assert chosen.margins == pytest.approx(-np.log(0.1), abs=0.4)
    assert Calibration.from_json(chosen.to_json()).to_json() == chosen.to_json()


def test_later_folds_weigh_more_than_earlier_ones() -> None:
    noise = np.random.default_rng(4)
    widths = [
        Calibration.chosen(folds_of(*(size * noise.normal(size=600) for size in sizes)), 0.8, season=1).margins
        for sizes in ((1, 1, 3), (3, 1, 1))
    ]
    assert widths[0] > 1.3 * widths[1]


def test_few_samples_have_one_margin_and_fewer_are_refused() -> None:
    few = Calibration.chosen(folds_of(np.arange(6)), 0.8, season=1)
    assert (few.lower_margins, few.samples) == (None, 6)
    with pytest.raises(ValueError, match="3 held-out samples are too few to calibrate"):
        Calibration.chosen(folds_of(np.arange(3)), 0.8, season=1)


def test_chosen_intervals_scale_with_the_level_of_a_series_and_cover() -> None:
    held_out = [(samples, repeated(samples)) for samples in (walk(seed, size=1.0) for seed in range(3))]
    chosen = Calibration.chosen(held_out, 0.8, season=6)
    small, large = walk(7, size=1.0), walk(7, size=1024.0)
    of_small, of_large = (chosen.apply(repeated(samples), samples) for samples in (small, large))
    np.testing.assert_allclose(of_large.upper - of_large.lower, 1024 * (of_small.upper - of_small.lower), rtol=1e-3)
    assert covered(small, of_small) == pytest.approx(0.8, abs=0.06)


def test_intervals_of_windows_scaled_by_themselves_scale_with_levels_far_below_one() -> None:
    held_out = [(samples, repeated(samples)) for samples in (walk(seed, size=1.0) for seed in range(3))]
    symmetric = Calibration.fit(held_out, 0.8, 0.9, kind="moves", season=6)
    small, large = walk(7, size=2.0**-30), walk(7, size=1.0)
    of_small, of_large = (symmetric.apply(repeated(samples), samples) for samples in (small, large))
    for low, high in zip(of_small.bounds(0.8), of_large.bounds(0.8), strict=True):
        np.testing.assert_allclose(2.0**30 * (low.upper - low.lower), high.upper - high.lower, rtol=1e-5)
    again = Calibration.from_json(symmetric.to_json())
    np.testing.assert_array_equal(again.apply(repeated(small), small).upper, of_small.upper)


@pytest.mark.parametrize("kind", ["changes", "moves", "scale", "both"])
def test_every_difficulty_is_above_zero_in_a_window_in_which_nothing_moves(kind: Difficulty) -> None:
    still = replace(walk(0, 1.0), values=np.full((1500, 1), 7.0, np.float32))
    assert (difficulty(still, kind, season=6) > 0).all()


def test_a_calibration_of_before_reads_and_writes_as_it_was() -> None:
    text = '{"coverage": 0.8, "margins": [[0.5]], "samples": 12}'
    assert Calibration.from_json(text).to_json() == text
