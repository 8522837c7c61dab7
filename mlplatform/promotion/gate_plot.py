"""The picture of a gate decision: candidate against champion, as PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlplatform.figures import BLUE, GREY, ORANGE, new_figure, png_bytes
from mlplatform.promotion.gate import GateReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_gate(report: GateReport) -> bytes:
    """Return the scores of candidate, champion and naive baselines, and the error of every sample for both pairs."""
    figure = new_figure(8.0, 3.2)
    scores, errors = figure.subplots(1, 2)
    _draw_scores(scores, report)
    _draw_errors(errors, report)
    return png_bytes(figure)


def _draw_scores(axes: Axes, report: GateReport) -> None:
    decision = report.decision
    bars = [(f"candidate {decision.candidate.version}", decision.candidate.score, BLUE)]
    if decision.champion is not None:
        bars.append((f"champion {decision.champion.version}", decision.champion.score, ORANGE))
    bars += [(name, score, GREY) for name, score in decision.baselines.items()]
    for name, score, color in bars:
        if score is not None and np.isfinite(score):
            axes.bar(name, score, color=color)
    if decision.needed is not None and np.isfinite(decision.needed):
        axes.axhline(decision.needed, color="black", linewidth=1, linestyle="--", label="needed")
        axes.legend(frameon=False, fontsize=8)
    axes.set_ylabel(decision.metric)
    axes.tick_params(axis="x", labelsize=7)


def _draw_errors(axes: Axes, report: GateReport) -> None:
    candidate, champion = report.errors.get("candidate"), report.errors.get("champion")
    axes.set_title("error per sample", fontsize=9)
    if candidate is not None and champion is not None:
        axes.scatter(champion, candidate, s=6, color=BLUE)
        limit = float(max(np.nanmax(candidate), np.nanmax(champion)))
        axes.plot([0, limit], [0, limit], color=GREY, linewidth=1)
        axes.set_xlabel("champion")
        axes.set_ylabel("candidate; below the line is better")
    elif candidate is not None:
        axes.hist(candidate[np.isfinite(candidate)], bins=30, color=BLUE)
        axes.set_xlabel("candidate")
