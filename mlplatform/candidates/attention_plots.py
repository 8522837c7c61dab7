"""Plots of what a Temporal Fusion Transformer looked at, as PNG."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mlplatform.datamodule import Samples, WindowSamples
from mlplatform.figures import BLUE, GREY, ORANGE, new_figure, png_bytes
from mlplatform.models import Model
from mlplatform.models.families import TFT, Interpretation

ROW_INCHES = 0.24
MAX_VARIABLES = 20


def interpretation_plots(model: Model, samples: Samples) -> dict[str, bytes]:
    """Return the plots of the mean weights over all samples by name; none for another family, or without samples."""
    if not isinstance(model, TFT) or not isinstance(samples, WindowSamples) or not len(samples):
        return {}
    interpretation = model.interpret(samples)
    return {"variables": variables_plot(interpretation), "attention": attention_plot(interpretation)}


def variables_plot(interpretation: Interpretation) -> bytes:
    """Return bars of the weight of every variable, one panel per kind of input; the heaviest where there are many."""
    kinds = {
        "static": interpretation.static,
        "past": interpretation.past,
        "known over the horizon": interpretation.future,
    }
    panels = {title: _heaviest(weights) for title, weights in kinds.items() if weights}
    rows = max(len(weights) for weights in panels.values())
    figure = new_figure(3.4 * len(panels), 1.0 + ROW_INCHES * max(rows, 4))
    for position, (title, weights) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), position + 1)
        axes.barh(range(len(weights)), list(weights.values()), color=BLUE, height=0.7)
        axes.set_yticks(range(len(weights)), list(weights), fontsize=8)
        # The same room for every panel, so that bars are equally thick.
        axes.set_ylim(rows - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.tick_params(axis="x", labelsize=8)
        axes.set_xlabel("mean weight")
        axes.set_title(title, fontsize=10)
    return png_bytes(figure)


def attention_plot(interpretation: Interpretation) -> bytes:
    """Return the attention to every input step: the mean over the horizon, and its first and last step."""
    horizon, steps = interpretation.attention.shape
    places = np.arange(horizon - steps + 1, 1)
    figure = new_figure(7.0, 3.2)
    axes = figure.add_subplot()
    for step, color in ((1, GREY), (horizon, ORANGE)):
        label = f"step {step} of the horizon"
        axes.plot(places, interpretation.attention[step - 1, : len(places)], color=color, linewidth=1, label=label)
    axes.plot(places, interpretation.lag_attention[::-1], color=BLUE, linewidth=2, label="mean over the horizon")
    axes.set_xlabel("input step, 0 is the origin")
    axes.set_ylabel("mean attention")
    axes.margins(y=0.1)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return png_bytes(figure)


def _heaviest(weights: Mapping[str, float]) -> dict[str, float]:
    ranked = sorted(weights.items(), key=lambda item: -item[1])
    return dict(ranked[:MAX_VARIABLES])
