"""Plots of a training run, as PNG."""

from __future__ import annotations

import numpy as np

from mlplatform.candidates.candidate import Candidate
from mlplatform.datamodule import DataModule
from mlplatform.figures import BLUE, GREY, ORANGE, new_figure, png_bytes


def scores_plot(candidate: Candidate) -> bytes:
    """Return bars of the deciding metric on every fold and the reference set, model beside baselines."""
    figure = new_figure(7.0, 3.2)
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
    return png_bytes(figure)


def training_plots(candidate: Candidate, reference: DataModule) -> dict[str, bytes]:
    """Return every plot of a training run by name: scores, forecast, errors per step, curves, study and attention."""
    from mlplatform.candidates.attention_plots import interpretation_plots
    from mlplatform.tuning import study_plots

    report, config = candidate.report, candidate.config
    plots = {"scores": scores_plot(candidate), "forecast": forecast_plot(candidate, reference)}
    if report.candidate.steps:
        plots["steps"] = steps_plot(candidate)
    if any(len(values) > 1 for series in report.curves.values() for values in series.values()):
        plots["curves"] = curves_plot(candidate)
    plots |= study_plots(report.trials, config.metric)
    if config.task == "forecast":
        samples = reference.samples(candidate.manager, candidate.manager.transform(reference.panel), reference.rows)
        plots |= interpretation_plots(candidate.model, samples)
    return plots


def steps_plot(candidate: Candidate) -> bytes:
    """Return the deciding metric on the reference set for every step of the horizon, model beside baselines."""
    figure = new_figure(7.0, 3.2)
    axes = figure.add_subplot()
    metric = candidate.config.metric
    reports = {candidate.config.model.family: candidate.report.candidate, **candidate.report.baselines}
    for position, (name, report) in enumerate(reports.items()):
        values = report.steps["reference"][metric]
        color = BLUE if position == 0 else str(0.35 + 0.45 * position / len(reports))
        axes.plot(range(1, len(values) + 1), values, label=name, color=color, linewidth=2 if position == 0 else 1)
    axes.set_xlabel("step of the horizon")
    axes.set_ylabel(metric)
    axes.set_title(f"{candidate.config.name}: reference set")
    axes.legend(frameon=False, fontsize=8, ncols=len(reports))
    axes.margins(y=0.2)
    return png_bytes(figure)


def curves_plot(candidate: Candidate) -> bytes:
    """Return losses of a model against iterations, or the last losses of many: validation folds and the refit."""
    figure = new_figure(7.0, 3.2)
    axes = figure.add_subplot()
    shades = {"validation_loss": BLUE, "train_loss": GREY}
    for fit, series in candidate.report.curves.items():
        for name, values in series.items():
            if name in shades and len(values) > 1:
                style = "-" if fit == "refit" else "--"
                axes.plot(range(1, len(values) + 1), values, style, label=f"{fit} {name}", color=shades[name])
    one = len(candidate.report.iterations) < 2
    axes.set_xlabel("iteration" if one else "one model after the other: each target's steps of the horizon")
    axes.set_ylabel("loss, preprocessed")
    axes.set_title(candidate.config.name)
    axes.legend(frameon=False, fontsize=7, ncols=2)
    return png_bytes(figure)


def forecast_plot(candidate: Candidate, reference: DataModule) -> bytes:
    """Return a picture of predictions on the reference set.

    Forecast: the history, truth, forecast and interval of one window in the middle, and whose it is. Otherwise:
    prediction against truth, or the probability of the true class.
    """
    figure = new_figure(7.0, 3.2)
    axes = figure.add_subplot()
    rows = reference.rows[[len(reference.rows) // 2]] if candidate.config.task == "forecast" else reference.rows
    samples = reference.samples(candidate.manager, candidate.manager.transform(reference.panel), rows)
    bounds = None
    if candidate.model.calibration is None:
        answers = reference.invert(candidate.manager, candidate.model.predict(samples))
    else:
        made = candidate.model.predict_intervals(samples)
        answers, *bounds = (reference.invert(candidate.manager, each) for each in made)
    truth = reference.truth(candidate.manager, rows)
    target = candidate.config.targets[-1]
    axes.set_title(f"{candidate.config.name}: reference set")
    if candidate.config.task == "forecast":
        band = None if bounds is None else (bounds[0][0, :, -1], bounds[1][0, :, -1])
        draw_forecast(axes, reference, int(rows[0]), target, truth[0, :, -1], answers[0, :, -1], band)
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
    return png_bytes(figure)


def draw_forecast(
    axes: object,
    module: DataModule,
    origin: int,
    target: str,
    truth: np.ndarray,
    forecast: np.ndarray,
    band: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Draw history, truth and forecast of one window on matplotlib axes, with its interval if there is one.

    Beside them stands the naive forecast: the last season once more, or the last value where there is no season.

    The title names the experiment, the entity and the time of the last row that the forecast knows.
    """
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    shown = min(module.config.lookback, 4 * module.config.horizon)
    past = slice(origin - shown + 1, origin + 1)
    future = slice(origin + 1, origin + 1 + len(truth))
    times, values = module.panel.timestamps, module.panel.columns[target]
    axes.plot(times[past], values[past], color=GREY, label="history")
    # One step makes a point: neither a line nor an area would show it.
    mark = "o" if len(truth) == 1 else ""
    if band is not None:
        coverage = module.config.uncertainty.coverage
        label = "interval" if coverage is None else f"{coverage:.0%} interval"
        if mark:
            axes.vlines(times[future], *band, color=ORANGE, alpha=0.4, linewidth=6, label=label)
        else:
            axes.fill_between(times[future], *band, color=ORANGE, alpha=0.2, linewidth=0, label=label)
    season = module.config.season
    naive = values[origin + 1 - season + np.arange(len(truth)) % season]
    words = "last season" if season > 1 else "last value"
    axes.plot(times[future], naive, ":", color=GREY, linewidth=1.2, marker=mark, label=words)
    axes.plot(times[future], truth, color="black", linewidth=1, marker=mark, label="truth")
    axes.plot(times[future], forecast, color=ORANGE, marker=mark, label="forecast")
    entity, column = module.panel.row_entities[origin], module.config.dataset.entity_column or "entity"
    axes.set_title(f"{module.config.name}: {column} {entity}, reference set, from {str(times[origin])[:16]}")
    unit = module.config.dataset.columns[target].unit
    axes.set_ylabel(f"{target} [{unit}]" if unit else target)
    axes.legend(frameon=False, fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
