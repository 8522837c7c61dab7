"""The contract every drift test keeps: a distance that grows with the shift and knows no units."""

from __future__ import annotations

import numpy as np
import pytest

from mlplatform.plugins import DRIFT_TESTS

REGISTRY = DRIFT_TESTS


@pytest.mark.parametrize("name", DRIFT_TESTS.names())
class TestDriftTestContract:
    """What every registered distance promises."""

    def test_it_is_zero_on_equal_samples_and_grows_with_the_shift(self, name: str) -> None:
        distance = DRIFT_TESTS.get(name)
        sample = np.random.default_rng(0).standard_normal(500)
        distances = [distance(sample, sample + shift) for shift in (0.0, 0.5, 1.0, 2.0)]
        assert distances[0] == 0.0
        assert distances == sorted(set(distances))

    def test_it_does_not_depend_on_units(self, name: str) -> None:
        distance = DRIFT_TESTS.get(name)
        generator = np.random.default_rng(0)
        reference, recent = generator.standard_normal(400), generator.standard_normal(100) + 0.5
        assert distance(reference * 1000 + 7, recent * 1000 + 7) == pytest.approx(distance(reference, recent))

    def test_a_constant_reference_gives_a_number(self, name: str) -> None:
        distance = DRIFT_TESTS.get(name)
        assert distance(np.ones(50), np.ones(20)) == 0.0
        assert np.isfinite(distance(np.ones(50), np.full(20, 3.0)))
        assert distance(np.ones(50), np.full(20, 3.0)) > 0
