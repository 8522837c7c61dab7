"""Prediction intervals that keep their coverage: adaptive conformal inference, fed by what came true.

Gibbs & Candès, "Adaptive conformal inference under distribution shift" (NeurIPS 2021). The score of a forecast is how
far the truth lay from the point prediction, in units of the calibrated distance of the bound on that side. Per step of
the horizon an interval is scaled by the quantile of the newest scores at 1 - alpha_t, and alpha_t moves after each
moment: up by `step_size` times the aimed share of misses, down by `step_size` times the share of misses there was.
Misses are those of the intervals that the method itself would have given, so it does not matter how often it is run.

All entities and targets share a scale; a moment of many entities counts as one, by the quantiles of its scores. Every
coverage has scales of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ExperimentConfig
from mlplatform.models import Model
from mlplatform.monitoring.forecast_errors import SCORE_POINTS, interval_scores
from mlplatform.registry import IntervalScale, Scales, calibration_digest, read_scale, write_scale
from mlplatform.registry.pairs import PairInfo
from mlplatform.settings import Settings

Floats = npt.NDArray[np.float64]

# Fewer moments say nothing; until then intervals are as they were calibrated.
LEAST_MOMENTS = 30
NARROWEST, WIDEST = 0.1, 10.0
# Windows of moments that are looked back at: where the method began, before, is soon forgotten.
WINDOWS = 4
# Scales that are remembered, to know by which one a bound was made.
REMEMBERED = 200


@dataclass(frozen=True)
class Adapted:
    """Where the method stands after the newest moment.

    Attributes:
        scales, levels: of shape (steps,): what intervals are scaled by, and alpha_t.
        path: of shape (moments, steps): what those of each moment were scaled by.
    """

    scales: Floats
    levels: Floats
    path: Floats


def adapt(scores: Floats, coverage: float, step_size: float, window: int) -> Adapted:
    """Run the method over moments in time order.

    Parameters:
        scores: of shape (moments, steps, points): of each moment; NaN where none is known.
        coverage: share of truths that intervals are meant to hold.
    """
    moments, steps, _ = scores.shape
    levels, path = np.full(steps, 1.0 - coverage), np.ones((moments + 1, steps))
    for moment in range(moments + 1):
        recent = scores[max(0, moment - window) : moment]
        path[moment] = [_scale(recent[:, step], levels[step]) for step in range(steps)]
        if moment < moments:
            now = scores[moment]
            known = np.isfinite(now)
            count = known.sum(axis=1)
            missed = (known & (now > path[moment][:, None])).sum(axis=1) / np.maximum(count, 1)
            levels = np.where(count > 0, levels + step_size * (1.0 - coverage - missed), levels)
    return Adapted(path[-1], levels, path[:-1])


def _scale(scores: Floats, level: float) -> float:
    """Return the scale of a step from the scores of recent moments, of shape (moments, points).

    Those of one moment hang together, so it is moments that the finite-sample correction counts.
    """
    is_known = np.isfinite(scores)
    known, moments = scores[is_known], int(is_known.any(axis=1).sum())
    if moments < LEAST_MOMENTS:
        return 1.0
    # Below zero the method asks for all there is, above one for nothing.
    share = min(max(1.0 - level, 0.0), 1.0)
    rank = min(int(np.ceil((moments + 1) * share * len(known) / moments)), len(known)) - 1
    found = float(np.partition(known, max(rank, 0))[max(rank, 0)])
    return min(max(found, NARROWEST), WIDEST)


def update_scale(
    config: ExperimentConfig, settings: Settings, pair: PairInfo, model: Model, now: pd.Timestamp
) -> IntervalScale | None:
    """Learn from what has come true of a pair, and have servers, batches and the pyfunc go by it.

    Returns:
        What was learnt; `None` where adaptation is off, or the model has no calibrated intervals: they are as they were
        calibrated then.
    """
    step_size, calibration = config.adaptation.step_size, model.calibration
    if step_size is None or calibration is None:
        write_scale(None, settings, config.name)
        return None
    before = read_scale(settings, config.name)
    history = before.history if before is not None and before.pair_id == pair.pair_id else ()
    window = config.adaptation.window
    steps = config.horizon if config.task == "forecast" else 1
    adapted: list[Adapted] = []
    until = ""
    for place, coverage in enumerate(calibration.coverages):
        made_by = [(since, scales[place]) for since, scales in history]
        found = interval_scores(config, settings, pair.pair_id, coverage, made_by, moments=WINDOWS * window)
        adapted.append(adapt(_by_moment(found, steps), coverage, step_size, window))
        until = max(until, found["moment"].max().isoformat() if len(found) else "")
    scales: Scales = tuple(tuple(map(float, each.scales)) for each in adapted)
    if not history or history[-1][1] != scales:
        history = (*history, (now.isoformat(), scales))[-REMEMBERED:]
    scale = IntervalScale(
        pair_id=pair.pair_id,
        version=pair.version,
        calibration=calibration_digest(model) or "",
        scales=scales,
        levels=tuple(tuple(map(float, each.levels)) for each in adapted),
        until=until,
        history=history,
    )
    write_scale(scale, settings, config.name)
    return scale


def _by_moment(found: pd.DataFrame, steps: int) -> Floats:
    """Return scores of shape (moments, steps, points)."""
    moments, places = np.unique(found["moment"].to_numpy("datetime64[ns]"), return_inverse=True)
    scores = np.full((len(moments), steps, SCORE_POINTS), np.nan)
    if len(found):
        first = 1 if steps > 1 or found["step"].min() > 0 else 0
        step = np.clip(found["step"].to_numpy(np.int64) - first, 0, steps - 1)
        scores[places, step] = np.array(found["scores"].tolist(), dtype=np.float64)
    return scores
