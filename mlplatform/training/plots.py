"""Plots of a training run, as PNG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from mlplatform.datamodule.base import DataModule
from mlplatform.training.candidate import Candidate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, GREY, ORANGE = "#2563eb", "#9ca3af", "#ea580c"


def scores_plot(candidate: Candidate) -> bytes:
    """Return bars of the deciding metric on every fold and the reference set, model beside baselines."""
    figure = _figure(7.0, 3.2)
    axes = figure.add_subplot()
    metric = candidate.config.metric
    reports = {candidate.config.model.family: candidate.report.candidate, **candidate.report.baselines}
    width = 0.8 / len(reports)
    for position, (name, report) in enumerate(reports.items()):
        values = [fold[metric] for fold in report.folds] + [report.parts["reference"][metric]]
        places = np.arange(len(values)) + (position - (len(reports) - 1) / 2) * width
        color = BLUE if position == 0 else str(0.35 + 0.45 * position / len(reports))
        axes.bar(places, values, width, label=name, color=color)
    labels = [f"fold {k}" for k in range(len(candidate.report.candidate.folds))] + ["reference"]
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylabel(metric)
    axes.set_title(candidate.config.name)
    axes.legend(frameon=False, fontsize=8, ncols=len(reports))
    axes.margins(y=0.2)
    return _png(figure)


def forecast_plot(candidate: Candidate, reference: DataModule) -> bytes:
    """Return a picture of predictions on the reference set.

    Forecast: the history, truth and forecast of one window in the middle. Otherwise: prediction against truth, or the
    probability of the true class.
    """
    figure = _figure(7.0, 3.2)
    axes = figure.add_subplot()
    rows = reference.rows[[len(reference.rows) // 2]] if candidate.config.task == "forecast" else reference.rows
    samples = reference.samples(candidate.manager, candidate.manager.transform(reference.panel), rows)
    answers = reference.invert(candidate.manager, candidate.model.predict(samples))
    truth = reference.truth(candidate.manager, rows)
    target = candidate.config.targets[-1]
    if candidate.config.task == "forecast":
        draw_forecast(axes, reference, int(rows[0]), target, truth[0, :, -1], answers[0, :, -1])
    elif candidate.config.task == "regression":
        axes.scatter(truth, answers, s=10, color=BLUE)
        limits = [float(truth.min()), float(truth.max())]
        axes.plot(limits, limits, color=GREY, linewidth=1)
        axes.set_xlabel(f"true {target}")
        axes.set_ylabel(f"predicted {target}")
    else:
        axes.hist(answers[np.arange(len(truth)), truth.astype(int)], bins=20, range=(0, 1), color=BLUE)
        axes.set_xlabel("probability of the true class")
        axes.set_ylabel("samples")
    axes.set_title(f"{candidate.config.name}: reference set")
    return _png(figure)


def draw_forecast(
    axes: object, module: DataModule, origin: int, target: str, truth: np.ndarray, forecast: np.ndarray
) -> None:
    """Draw history, truth and forecast of one window on matplotlib axes."""
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    shown = min(module.config.lookback, 4 * module.config.horizon)
    past = slice(origin - shown + 1, origin + 1)
    future = slice(origin + 1, origin + 1 + len(truth))
    times, values = module.panel.timestamps, module.panel.columns[target]
    axes.plot(times[past], values[past], color=GREY, label="history")
    axes.plot(times[future], truth, color="black", linewidth=1, label="truth")
    axes.plot(times[future], forecast, color=ORANGE, label="forecast")
    unit = module.config.dataset.columns[target].unit
    axes.set_ylabel(f"{target} [{unit}]" if unit else target)
    axes.legend(frameon=False, fontsize=8)
    axes.tick_params(axis="x", labelsize=7)


def _figure(width: float, height: float) -> Figure:
    # The object-oriented interface: pyplot keeps global state and would pick a display.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()
