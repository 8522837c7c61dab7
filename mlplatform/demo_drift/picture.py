"""The picture at the end: how wrong the served forecasts were, and how often their intervals held the truth."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.demo_drift.plant import COVERAGE, ENTITIES

if TYPE_CHECKING:
    import pandas as pd


def draw(outcome: pd.DataFrame, marks: Mapping[str, dt.datetime], reference_error: float, path: Path) -> Path:
    """Draw errors and coverage by day.

    Parameters:
        outcome: as `Client.outcome` returns it.
        marks: what happened when, in the plant's time.
        reference_error: of the first version, on its reference set.
    """
    from mlplatform.figures import BLUE, GREY, ORANGE, new_figure

    figure = new_figure(9.0, 6.0)
    upper, lower = figure.subplots(2, sharex=True)
    for version, colour in zip(sorted(outcome["version"].unique()), (BLUE, ORANGE), strict=False):
        own = outcome[outcome["version"] == version]
        upper.plot(own["day"], own["error"], marker="o", color=colour, label=f"version {version}")
        lower.plot(own["day"], own["covered"], marker="o", color=colour)
    upper.axhline(reference_error, color=GREY, linestyle=":", label="version 1 on its reference set")
    lower.axhline(COVERAGE, color=GREY, linestyle=":")
    upper.set_ylabel("mean absolute error [K]")
    upper.set_ylim(bottom=0)
    lower.set_ylabel(f"intervals that held\n({COVERAGE:.0%} meant)")
    lower.set_ylim(0, 1.02)
    for number, (text, moment) in enumerate(marks.items()):
        for axes in (upper, lower):
            axes.axvline(moment, color=GREY, linewidth=0.8)
        top = 0.97 - 0.11 * (number % 4)
        upper.text(moment, top, f" {text}", transform=upper.get_xaxis_transform(), fontsize=8, va="top")
    lower.tick_params(axis="x", labelsize=8)
    figure.legend(*upper.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=3, fontsize=9)
    figure.suptitle(f"Served forecasts of the top-oil temperature of {len(ENTITIES)} transformers, by day")
    figure.savefig(path, dpi=120)
    return path
