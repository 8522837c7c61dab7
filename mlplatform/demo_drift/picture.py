"""The picture at the end: how wrong the served forecasts were, and how often their intervals held the truth."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.demo_drift.plant import COVERAGE, ENTITIES

if TYPE_CHECKING:
    import pandas as pd


def draw(outcome: pd.DataFrame, marks: Mapping[str, dt.datetime], references: Mapping[int, float], path: Path) -> Path:
    """Draw errors and coverage by day.

    Parameters:
        outcome: as `Client.outcome` returns it.
        marks: what happened when, in the plant's time.
        references: the error of every version on its reference set.
    """
    from mlplatform.figures import BLUE, GREY, ORANGE, new_figure

    figure = new_figure(9.0, 6.0)
    upper, lower = figure.subplots(2, sharex=True)
    for version, colour in zip(sorted(outcome["version"].unique()), (BLUE, ORANGE), strict=False):
        own = outcome[outcome["version"] == version]
        upper.plot(own["day"], own["error"], marker="o", color=colour, label=f"version {version}")
        lower.plot(own["day"], own["covered"], marker="o", color=colour)
        if version in references:
            level = [references[version]] * 2
            label = f"version {version} on its reference set"
            upper.plot([own["day"].min(), own["day"].max()], level, color=colour, linestyle=":", label=label)
    lower.axhline(COVERAGE, color=GREY, linestyle=":")
    upper.set_ylabel("mean absolute error [K]")
    # Room above the lines for what happened.
    upper.set_ylim(0, 1.5 * outcome["error"].max())
    lower.set_ylabel(f"intervals that held\n({COVERAGE:.0%} meant)")
    lower.set_ylim(0, 1.02)
    begin, end = outcome["day"].min(), outcome["day"].max()
    for number, (text, moment) in enumerate(marks.items()):
        for axes in (upper, lower):
            axes.axvline(moment, color=GREY, linewidth=0.8)
        is_late = (moment - begin) / (end - begin) > 0.75
        upper.text(
            moment,
            0.97 - 0.07 * (number % 4),
            f"{text} " if is_late else f" {text}",
            transform=upper.get_xaxis_transform(),
            fontsize=8,
            va="top",
            ha="right" if is_late else "left",
        )
    lower.tick_params(axis="x", labelsize=8)
    figure.legend(*upper.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(f"Served forecasts of the top-oil temperature of {len(ENTITIES)} transformers, by day")
    figure.savefig(path, dpi=120)
    return path
