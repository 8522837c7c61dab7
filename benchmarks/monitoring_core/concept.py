"""Concept drift: features behave as they did, and what they mean for the target has changed.

A target is the sum of an AR(.9) series that is known ahead, as a plan is, times a factor, and of one that is not. Every
hour it is forecast a day ahead, as well as can be by the factor that the training rows had. Then the factor changes:
nothing but the error of the forecasts tells. They are logged, joined with the truth and judged as the platform does it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.signal import lfilter

from mlplatform.config import ENTITY, TIMESTAMP, load_experiment
from mlplatform.monitoring.error_drift import judge_errors
from mlplatform.settings import Settings
from mlplatform.testing.joined_errors import join_log, log_forecasts

Floats = npt.NDArray[np.float64]

EXPERIMENT, TARGET = "fleet_xgboost", "top_oil_c"
MEMORY = 0.9
# The factor before, and after; hours of forecasts before the change.
FACTOR, CHANGED = 1.0, -0.5
BEFORE = 4 * 168


def alarms_after(seed: Sequence[int], looks: Sequence[int], *, changes: bool) -> tuple[bool, list[int]]:
    """Return whether the live error of a series is called risen before its change, and at which looks after it.

    Parameters:
        looks: hours after the change, ascending; the report before it is made at the change itself.
        changes: whether the factor does change.
    """
    with tempfile.TemporaryDirectory() as home:
        settings = Settings.from_env({"MLPLATFORM_HOME": home})
        config = load_experiment(EXPERIMENT, settings=settings)
        times = pd.date_range("2024-01-01", periods=BEFORE + looks[-1] + 1, freq="1h")
        truth, forecasts, reference = _simulated(seed, len(times), config.horizon, changes=changes)
        rows = pd.DataFrame({ENTITY: 1, TIMESTAMP: times.tz_localize("UTC"), TARGET: truth})
        moments = times.to_numpy("datetime64[ns]")
        ahead = moments[np.arange(len(forecasts))[:, None] + np.arange(1, config.horizon + 1)]
        log_forecasts(settings, EXPERIMENT, TARGET, moments[: len(forecasts)], ahead, forecasts)
        join_log(config, settings, rows)
        state, risen = None, []
        for hours in (0, *looks):
            newest = rows[TIMESTAMP].iloc[BEFORE + hours]
            errors, state = judge_errors(config, settings, 1, newest, reference, state)
            if errors.is_drifted:
                risen.append(hours)
    return 0 in risen, [hours for hours in risen if hours]


def _simulated(seed: Sequence[int], hours: int, horizon: int, *, changes: bool) -> tuple[Floats, Floats, float]:
    """Return the target, its forecasts of shape (hours - horizon, horizon), and their mean absolute error in training.

    The forecasts of row `i` are made once the value of hour `i` is known.
    """
    generator = np.random.default_rng(seed)
    training = 8736
    shocks = generator.standard_normal((training + hours, 2)) * np.sqrt(1 - MEMORY**2)
    plan, rest = lfilter([1.0], [1.0, -MEMORY], shocks, axis=0).T
    factor = np.where(np.arange(training + hours) < training + BEFORE, FACTOR, CHANGED if changes else FACTOR)
    target = factor * plan + rest
    ahead = np.arange(1, horizon + 1)
    moments = np.arange(training + hours - horizon)[:, None] + ahead
    left = (target - FACTOR * plan)[: len(moments), None]
    forecasts = FACTOR * plan[moments] + MEMORY**ahead * left
    error = np.abs(forecasts - target[moments])[: training - horizon].mean()
    return target[training:], forecasts[training:], float(error)
