"""Whether the live error of a pair has risen: the recent one against the reference error, and the sequential test.

Both read the table of forecast errors, and join nothing by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mlplatform.config import ExperimentConfig
from mlplatform.monitoring.forecast_errors import block_errors, recent_error
from mlplatform.monitoring.live_error import ErrorTest
from mlplatform.monitoring.report import ErrorDrift
from mlplatform.settings import Settings
from mlplatform.state_files import is_ahead, moment

# The live error has risen if it is beyond this part of the way from the reference error to its `error_ratio` times; the
# test of that raises a false alarm once in so many days on average, or less often. Bets that gain nothing add up to
# some forty at the reference error, so of months and years more blocks are asked for than come in so many days.
TOLERATED_RISE, DAYS_TO_FALSE_ALARM, LEAST_BLOCKS_TO_FALSE_ALARM = 0.5, 730.0, 100.0
DAY = pd.Timedelta(days=1)


def reference_error_of(config: ExperimentConfig, metrics: Mapping[str, float]) -> float | None:
    """Return the error of a pair on its reference set that live errors are like, from its run's metrics.

    The mean absolute error in original units; of classes the share of wrong ones. `None` if the run has neither.
    """
    if config.task == "classification":
        accuracy = metrics.get("reference_accuracy")
        return None if accuracy is None else 1.0 - accuracy
    return metrics.get("reference_mae")


def judge_errors(
    config: ExperimentConfig,
    settings: Settings,
    version: int,
    newest: pd.Timestamp,
    reference: float | None,
    state: ErrorTest | None,
) -> tuple[ErrorDrift, ErrorTest | None]:
    """Return what the table says of a pair's live error, and the state of the sequential test.

    The recent error is that of the newest `drift.recent_steps` steps (of tables: as many days as that has in hours): a
    long good past would hide what is wrong now.

    Parameters:
        newest: the newest moment whose truth may be known.
        reference: error of the pair on its reference set; `None` if unknown.
        state: the test so far; that of another pair is forgotten.
    """
    is_forecast = config.task == "forecast"
    step = pd.Timedelta(config.dataset.nominal_step) if is_forecast else pd.Timedelta(hours=1)
    since = newest - config.drift.recent_steps * step
    if is_forecast:
        since = config.dataset.calendar.moment(newest, -config.drift.recent_steps)
    count, recent = recent_error(config, settings, version, since, newest)
    judged = ErrorDrift(
        count, recent if count >= config.drift.min_predictions else None, reference, config.drift.error_ratio
    )
    if not reference:
        return judged, None
    length = config.horizon * step if is_forecast else DAY
    test = _updated(config, settings, version, newest, reference, length, state)
    limit = max(DAYS_TO_FALSE_ALARM * (DAY / length), LEAST_BLOCKS_TO_FALSE_ALARM)
    return (
        ErrorDrift(judged.predictions, judged.recent, reference, judged.ratio_limit, test.evidence, limit),
        test,
    )


def _is_ahead(state: ErrorTest, newest: pd.Timestamp) -> bool:
    """Return whether a test has counted what is yet to come, by a clock that was wrong, so that it would not go on."""
    return state.until is not None and is_ahead(moment(state.until), newest.to_pydatetime())


def _updated(
    config: ExperimentConfig,
    settings: Settings,
    version: int,
    newest: pd.Timestamp,
    reference: float,
    length: pd.Timedelta,
    state: ErrorTest | None,
) -> ErrorTest:
    """Return the test after the blocks of time that are complete by now.

    A block is as long as the horizon, beyond which the errors of a good forecast no longer depend on each other; of
    tables a day. What becomes known of a block after it was counted is left out.
    """
    limit = reference * (1.0 + TOLERATED_RISE * (config.drift.error_ratio - 1.0))
    if state is None or (state.version, state.limit) != (version, limit) or _is_ahead(state, newest):
        state = ErrorTest(version, limit)
    after = pd.Timestamp(state.until) if state.until else None
    blocks = block_errors(config, settings, version, length, after, newest)
    if blocks.empty:
        return state
    return state.updated(blocks["error"].to_numpy(dtype=np.float64), blocks["end"].iloc[-1].isoformat())
