"""Plots of a search from its table of trials."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlplatform.tuning.plots import parameter_importance, study_plots

PNG = b"\x89PNG\r\n\x1a\n"


def search_rows(trials: int = 30) -> list[dict[str, Any]]:
    """Return a search whose loss follows the learning rate, with a dimension that is searched for one choice only."""
    noise = np.random.default_rng(0)
    rows: list[dict[str, Any]] = [{"number": 0, "state": "COMPLETE", "loss": 0.5, "seconds": 1.0}]
    for number in range(1, trials):
        rate = float(10 ** noise.uniform(-3, 0))
        kind = ("adam", "sgd")[number % 2]
        row = {"number": number, "state": "COMPLETE", "loss": 1 + rate, "seconds": 1.0, "rate": rate, "kind": kind}
        row |= {"width": int(noise.integers(1, 9)), "same": 1}
        if kind == "sgd":
            row["momentum"] = float(noise.uniform())
        rows.append(row)
    rows[5] |= {"state": "PRUNED"}
    rows[6] |= {"state": "FAIL", "loss": None}
    rows[7] |= {"loss": 1e9}
    return rows


def test_importance_finds_the_parameter_that_matters() -> None:
    shares = parameter_importance(search_rows())
    assert next(iter(shares)) == "rate"
    assert shares["rate"] > 0.8
    assert set(shares) == {"rate", "kind", "width", "momentum"}
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert shares == parameter_importance(search_rows())


@pytest.mark.parametrize("metric", ["mae", "r2"])
def test_a_search_has_three_plots(metric: str) -> None:
    plots = study_plots(search_rows(), metric)
    assert set(plots) == {"history", "slices", "importance"}
    assert all(png.startswith(PNG) for png in plots.values())


def test_few_trials_have_fewer_plots() -> None:
    rows = search_rows()
    assert set(study_plots(rows[:4], "mae")) == {"history", "slices"}
    assert set(study_plots(rows[:1], "mae")) == {"history"}
    assert study_plots([{**rows[0], "state": "FAIL", "loss": None}], "mae") == {}
    assert study_plots([], "mae") == {}


def test_equal_losses_have_no_importance() -> None:
    assert parameter_importance([{**row, "loss": 1.0} for row in search_rows()]) == {}


def test_importance_needs_no_order_between_choices() -> None:
    rows = [
        {"number": k, "state": "COMPLETE", "loss": float(k % 3 == 1), "seconds": 1.0, "kind": "abc"[k % 3], "x": k % 2}
        for k in range(12)
    ]
    assert next(iter(parameter_importance(rows))) == "kind"
