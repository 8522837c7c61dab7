"""Plots of a search, as PNG, from its table of trials: they need no study, so they can be made from a stored report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlplatform.figures import BLUE, GREY, ORANGE, new_figure, png_bytes
from mlplatform.plugins import METRICS
from mlplatform.tuning.trials import COLUMNS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Completed trials with values of their own that an importance needs to mean anything.
LEAST_TRIALS = 4
SLICES_PER_ROW = 3
# Values this far apart, largest over smallest, are shown on a logarithmic axis.
WIDE = 20.0

Row = Mapping[str, Any]


def study_plots(trials: Sequence[Row], metric: str) -> dict[str, bytes]:
    """Return the plots of a search by name: `history`, `slices` and `importance`, those that the trials allow.

    Parameters:
        trials: rows of `TuningResult.trials`: number, state, loss, seconds and the parameters that were searched.
        metric: the deciding metric; its own values are shown, not the losses.
    """
    completed = [row for row in trials if row["state"] == "COMPLETE"]
    if not completed:
        return {}
    plots = {"history": _history(trials, metric)}
    names = _dimensions(completed)
    if names:
        plots["slices"] = _slices(completed, names, metric)
    importance = parameter_importance(trials)
    if importance:
        plots["importance"] = _importance(importance)
    return plots


def parameter_importance(trials: Sequence[Row]) -> dict[str, float]:
    """Return the share of each parameter in what the losses of completed trials can be told from, largest first.

    A random forest predicts the losses; a parameter's share is how much worse it does when the parameter's values are
    exchanged between trials (Breiman, Random Forests, 2001). Empty for too few trials, or without any difference.
    """
    rows = [
        row for row in trials if row["state"] == "COMPLETE" and np.isfinite(row["loss"]) and set(row) - set(COLUMNS)
    ]
    names = _dimensions(rows)
    if len(rows) < LEAST_TRIALS or not names:
        return {}
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    losses = np.array([row["loss"] for row in rows])
    # Ranks, so that one diverged trial does not decide all.
    ranks = np.argsort(np.argsort(losses, kind="stable"), kind="stable").astype(float)
    table = np.column_stack([_numbers(rows, name) for name in names])
    forest = RandomForestRegressor(n_estimators=100, random_state=0, n_jobs=1).fit(table, ranks)
    found = permutation_importance(forest, table, ranks, n_repeats=10, random_state=0, n_jobs=1)
    shares = np.maximum(found.importances_mean, 0.0)
    if np.ptp(losses) == 0 or not shares.sum():
        return {}
    ordered = np.argsort(-shares, kind="stable")
    return {names[position]: float(shares[position] / shares.sum()) for position in ordered}


def _dimensions(rows: Sequence[Row]) -> list[str]:
    """Return the parameters that differ between trials, in order of appearance."""
    names = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    return [name for name in names if len({repr(row[name]) for row in rows if name in row}) > 1]


def _numbers(rows: Sequence[Row], name: str) -> np.ndarray[Any, Any]:
    """Return a parameter as numbers; choices by their order of appearance, and -1 or less where it was not searched."""
    values = [row.get(name) for row in rows]
    if all(_is_number(value) for value in values if value is not None):
        known = [float(value) for value in values if value is not None]
        return np.array([min(known) - 1.0 - abs(min(known)) if value is None else float(value) for value in values])
    order = {text: float(k) for k, text in enumerate(dict.fromkeys(repr(v) for v in values if v is not None))}
    return np.array([-1.0 if value is None else order[repr(value)] for value in values])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _history(trials: Sequence[Row], metric: str) -> bytes:
    """Draw every trial's score, the best so far, and where trials were pruned."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(7.0, 3.2)
    axes = figure.add_subplot()
    sign = _sign(metric)
    completed = [row for row in trials if row["state"] == "COMPLETE"]
    numbers = [row["number"] for row in completed]
    scores = sign * np.array([row["loss"] for row in completed])
    axes.scatter(numbers, scores, s=16, color=BLUE, label="completed", zorder=3)
    better = np.maximum if sign < 0 else np.minimum
    line = [*better.accumulate(scores), better.reduce(scores)]
    last = max(row["number"] for row in trials)
    axes.step([*numbers, last], line, where="post", color=ORANGE, label="best so far")
    low, high = _shown(scores)
    axes.set_ylim(low, high)
    axes.scatter(
        numbers, np.clip(scores, low, high), s=np.where((scores < low) | (scores > high), 30, 0), marker="^",
        color=BLUE, zorder=4, clip_on=False,
    )  # fmt: skip
    for state, mark, color in (("PRUNED", "|", GREY), ("FAIL", "x", "black")):
        # What a pruned trial last reported is the loss of a part of the folds, so only that it ended is shown.
        ended = [row["number"] for row in trials if row["state"] == state]
        if ended:
            axes.scatter(
                ended, np.full(len(ended), low), s=40, marker=mark, color=color, clip_on=False, zorder=4,
                label=f"{'pruned' if state == 'PRUNED' else 'failed'} ({len(ended)})",
            )  # fmt: skip
    axes.set_xlabel("trial")
    axes.set_ylabel(metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return png_bytes(figure)


def _shown(scores: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Return the limits of the score axis; single scores far off are shown at its edge."""
    finite = scores[np.isfinite(scores)]
    low, middle, high = np.quantile(finite, [0.25, 0.5, 0.75]) if len(finite) else (0.0, 0.0, 0.0)
    reach = 4 * (high - low) or abs(middle) * 0.05 or 1.0
    inside = finite[np.abs(finite - middle) <= reach] if len(finite) else np.zeros(1)
    margin = 0.06 * (np.ptp(inside) or reach)
    return float(inside.min() - margin), float(inside.max() + margin)


def _slices(completed: Sequence[Row], names: Sequence[str], metric: str) -> bytes:
    """Draw the score against every parameter; later trials are darker."""
    from matplotlib.colors import LinearSegmentedColormap

    columns = min(SLICES_PER_ROW, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(2.6 * columns + 0.6, 2.3 * rows)
    low, high = _shown(_sign(metric) * np.array([row["loss"] for row in completed]))
    ages = LinearSegmentedColormap.from_list("ages", ["#bfdbfe", "#1e3a8a"])
    last = max(row["number"] for row in completed)
    for position, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, position + 1)
        chosen = [row for row in completed if name in row]
        scores = np.clip(_sign(metric) * np.array([row["loss"] for row in chosen]), low, high)
        places = _place(axes, chosen, name)
        axes.scatter(places, scores, s=14, c=[row["number"] for row in chosen], cmap=ages, vmin=0, vmax=max(last, 1))
        axes.set_ylim(low, high)
        axes.set_xlabel(name, fontsize=8)
        axes.tick_params(labelsize=7)
        if position % columns == 0:
            axes.set_ylabel(metric, fontsize=8)
    return png_bytes(figure)


def _place(axes: Axes, rows: Sequence[Row], name: str) -> np.ndarray[Any, Any]:
    """Return where the values of a parameter go on the horizontal axis, and give the axis its scale."""
    numbers = _numbers(rows, name)
    if not all(_is_number(row[name]) for row in rows):
        labels = list(dict.fromkeys(str(row[name]) for row in rows))
        axes.set_xticks(range(len(labels)), labels, rotation=20 if max(map(len, labels)) > 6 else 0)
        axes.margins(x=0.2)
    elif numbers.min() > 0 and numbers.max() / numbers.min() >= WIDE:
        axes.set_xscale("log")
    return numbers


def _importance(shares: Mapping[str, float]) -> bytes:
    """Draw the parameters' importances, largest on top."""
    figure = new_figure(7.0, 0.9 + 0.3 * len(shares))
    axes = figure.add_subplot()
    names = list(shares)[::-1]
    bars = axes.barh(names, [shares[name] for name in names], color=BLUE)
    axes.bar_label(bars, [f"{shares[name]:.0%}" for name in names], padding=3, fontsize=8)
    axes.set_xlim(0, 1.08 * max(shares.values()))
    axes.set_xlabel("share in the differences between trials")
    return png_bytes(figure)


def _sign(metric: str) -> float:
    """Return what turns losses into scores."""
    return -1.0 if METRICS.get(metric).greater_is_better else 1.0
