"""What stands in for a forecast: which value, when, and never for more than what the model failed at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mlplatform.datamodule import Float32, Panel
from mlplatform.registry import Answers, Contract, FallbackPolicy, Judged, complete, judge
from mlplatform.registry.fallback import stand_ins

LOOKBACK, HORIZON = 6, 4
CONTRACT = Contract("e", "forecast", "d", ("oil",), ("oil",), LOOKBACK, 0, HORIZON, 3600, limits=((None, 50.0),))
NAN = float("nan")
SEASONAL = FallbackPolicy("seasonal_naive", season=3, max_age="6h")


def panel(*series: Sequence[float]) -> Panel:
    start = np.datetime64("2026-01-01T00", "ns")
    times = [start + np.arange(len(each)) * np.timedelta64(1, "h") for each in series]
    return Panel(
        columns={"oil": np.concatenate([np.array(each, np.float32) for each in series])},
        timestamps=np.concatenate(times),
        entity_ids=np.arange(len(series)),
        offsets=np.cumsum([0, *map(len, series)]),
    )


WHOLE = (1, 2, 3, 4, 5, 6)


def values(policy: FallbackPolicy, *series: Sequence[float]) -> list[list[float]]:
    found: list[list[float]] = stand_ins(panel(*series), CONTRACT, policy).values[:, :, 0].tolist()
    return found


def test_the_value_one_season_earlier_stands_in() -> None:
    assert values(SEASONAL, WHOLE) == [[4, 5, 6, 4]]
    # Of what was not measured, the season before; without one, the last measured value.
    assert values(SEASONAL, (1, 2, 3, NAN, 5, NAN)) == [[1, 5, 3, 1]]
    assert values(SEASONAL, (NAN, 2, 3, NAN, 5, NAN), (NAN,) * 6)[0] == [5, 5, 3, 5]
    assert np.isnan(values(SEASONAL, WHOLE, (NAN,) * 6)[1]).all()
    assert values(SEASONAL, (1, 2, 3, 70, 5, 6)) == [[50, 5, 6, 50]]  # cut to the limits of the target
    assert values(FallbackPolicy("seasonal_naive", season=24), WHOLE) == [[6] * HORIZON]
    assert values(FallbackPolicy(), WHOLE) == [[6] * HORIZON]


def test_old_and_hardly_measured_features_fall_back_or_are_refused() -> None:
    rows = panel(WHOLE, (NAN,) * 5 + (6,), WHOLE, (NAN,) * 6)
    is_old = np.array([False, False, True, True])
    policy = FallbackPolicy("seasonal_naive", 3, min_observed=0.5, max_age="6h")
    found = judge(rows, CONTRACT, policy, is_old)
    assert found.replaced == (None, "too_little_observed", "stale", None)
    assert found.refused == (None, None, None, "stale")
    without = judge(rows, CONTRACT, FallbackPolicy(min_observed=0.5), is_old)
    assert without.refused == (None, "too_little_observed", None, "too_little_observed")
    table = Contract("e", "regression", "d", ("oil",), ("oil",))
    assert judge(rows, table, policy, is_old) == Judged(pytest.approx(1.0), (None,) * 4, (None,) * 4)


def test_what_begins_inside_the_lookback_is_answered_as_the_policy_says() -> None:
    # A gap later on, or a value before the lookback, makes no series short.
    rows = panel((NAN, 2, 3, 4, 5, 6), (1, NAN, 3, 4, 5, 6), (NAN,) * 6, (9, NAN, NAN, 3, 4, 5, 6))
    nothing = (None,) * 4
    for short in ("", "model"):
        found = judge(rows, CONTRACT, FallbackPolicy(short=short))
        assert (found.replaced, found.refused) == (nothing, nothing)
    for short in ("skip", "refuse"):
        refusing = judge(rows, CONTRACT, FallbackPolicy(short=short))
        assert refusing.refused == ("short_window", None, "short_window", None)
    naive = FallbackPolicy(season=3, short="naive", min_observed=0.9)
    found = judge(rows, CONTRACT, naive)
    assert found.replaced == ("short_window", None, None, None)
    # What is whole but for a gap is judged as ever; what has nothing to stand in for it is refused.
    assert found.refused == (None, "too_little_observed", "short_window", "too_little_observed")
    assert values(naive, (NAN, 2, 3, 4, 5, 6)) == [[4, 5, 6, 4]]
    # A window of twenty steps may lack the first two.
    longer = Contract("e", "forecast", "d", ("oil",), ("oil",), 20, 0, HORIZON, 3600)
    late = panel(*[(NAN,) * gap + (1.0,) * (20 - gap) for gap in (0, 2, 3)])
    assert judge(late, longer, FallbackPolicy(short="refuse")).refused == (None, None, "short_window")


@pytest.mark.parametrize("bad", range(5))
def test_a_model_that_fails_at_one_entity_answers_the_others(bad: int) -> None:
    rows = panel(*[tuple(np.array(WHOLE) + 10 * entity) for entity in range(5)])

    def answer(some: Panel) -> Answers:
        if bad in some.entity_ids:
            raise RuntimeError("broken")
        point: Float32 = np.repeat(some.entity_ids[:, None, None], HORIZON, axis=1).astype(np.float32)
        return Answers(point, point - 1, point + 1, 0.8)

    found = complete(rows, CONTRACT, SEASONAL, (None,) * 5, answer)
    assert [why for why in found.replaced if why] == ["model_failed"]
    assert found.is_fallback.tolist() == [entity == bad for entity in range(5)]
    expected = [[min(4 + 10 * bad, 50)] if entity == bad else [entity] for entity in range(5)]
    assert found.answers.point[:, 0].tolist() == expected
    assert found.answers.lower is not None
    assert np.isnan(found.answers.lower[:, 0, 0]).tolist() == [entity == bad for entity in range(5)]
    with pytest.raises(RuntimeError, match="broken"):
        complete(rows, CONTRACT, FallbackPolicy(), (None,) * 5, answer)


def test_a_model_that_fails_altogether_or_answers_nan() -> None:
    def fail(_: Panel) -> Answers:
        raise RuntimeError("broken")

    found = complete(panel(WHOLE, WHOLE), CONTRACT, SEASONAL, ("stale", None), fail)
    assert (found.replaced, found.answers.point[:, :, 0].tolist()) == (("stale", "model_failed"), [[4, 5, 6, 4]] * 2)
    assert found.answers.coverage is None
    with pytest.raises(RuntimeError, match="broken"):
        complete(panel(WHOLE, (NAN,) * 6), CONTRACT, SEASONAL, (None, None), fail)

    def nan(some: Panel) -> Answers:
        point = np.ones((len(some.entity_ids), HORIZON, 1), np.float32)
        point[0, 2] = np.nan
        return Answers(point)

    found = complete(panel(WHOLE, WHOLE), CONTRACT, SEASONAL, (None, None), nan)
    assert found.replaced == ("not_finite", None)
    assert np.isfinite(found.answers.point).all()
