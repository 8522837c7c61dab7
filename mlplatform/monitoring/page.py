"""A drift report as one HTML file that needs nothing else: what was found, and the pictures behind it.

The course of every numeric feature with the band that the training rows lead to expect, the error of each day beside
the naive forecast's and the reference error, and the coverage of each day beside the one that was promised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mlplatform.figures import BLUE, GREY, ORANGE, new_figure, png_bytes
from mlplatform.html_pages import html_page, html_table, image, paragraph, section
from mlplatform.monitoring.drift import Course
from mlplatform.monitoring.report import DriftReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Features that are drawn, those in question first, and blocks of the training before the later ones.
DRAWN, TRAINED = 12, 60
PER_ROW = 3


def report_page(report: DriftReport, courses: Sequence[Course], by_day: pd.DataFrame) -> str:
    """Return the page.

    Parameters:
        by_day: what `summarise_errors` says of the pair by `day`.
    """
    pictures = [section("Features", image(plot_courses(report, courses), "features over time"))] if courses else []
    if len(by_day):
        pictures.append(section("Errors and coverage", image(plot_errors(report, by_day), "errors by day")))
    made = (
        f"Version {report.pair_version} in production, split {report.split_version}, data until {report.data_until}, "
        f"made at {report.created_at}."
    )
    features, groups = (
        [{**vars(each), "kinds": ", ".join(each.kinds)} for each in part] for part in (report.features, report.groups)
    )
    return html_page(
        f"{report.experiment}, {report.about}",
        [
            paragraph(made),
            paragraph(_verdict(report), strong=True),
            section("Broken data", html_table([vars(each) for each in report.quality])),
            *pictures,
            section("Every feature", html_table(features)),
            section("Entities and groups", html_table(groups), *(paragraph(note) for note in report.notes)),
            section("Live error", html_table([vars(report.errors)])),
        ],
    )


def plot_courses(report: DriftReport, courses: Sequence[Course]) -> bytes:
    """Return the courses of features as a PNG: days of training grey, later ones blue, the recent ones' band orange."""
    in_question = {each.column for each in report.features if each.status not in (None, "steady")}
    chosen = sorted(courses, key=lambda course: course.column not in in_question)[:DRAWN]
    rows = -(-len(chosen) // PER_ROW)
    figure = new_figure(4.2 * min(len(chosen), PER_ROW), 2.3 * rows)
    for number, course in enumerate(chosen):
        axes = figure.add_subplot(rows, min(len(chosen), PER_ROW), number + 1)
        _draw_course(axes, course)
    return png_bytes(figure)


def plot_errors(report: DriftReport, by_day: pd.DataFrame) -> bytes:
    """Return the error and the coverage of each day as a PNG."""
    has_coverage = bool(by_day["covered"].notna().any())
    figure = new_figure(9, 5.2 if has_coverage else 2.8)
    axes = figure.add_subplot(2 if has_coverage else 1, 1, 1)
    days = pd.to_datetime(by_day["day"])
    axes.plot(days, by_day["error"], color=BLUE, marker="o", markersize=3, label="live error")
    axes.plot(days, by_day["naive_error"], color=GREY, label="naive forecast, as known then")
    if report.errors.reference is not None:
        axes.axhline(report.errors.reference, color=ORANGE, linestyle="--", label="reference set")
    axes.set_ylim(bottom=0)
    axes.set_title("mean absolute error by day")
    axes.legend(frameon=False, fontsize=8)
    _date(axes)
    if has_coverage:
        below = figure.add_subplot(2, 1, 2)
        below.plot(days, by_day["covered"], color=BLUE, marker="o", markersize=3, label="truths inside the interval")
        below.plot(days, by_day["coverage"], color=ORANGE, linestyle="--", label="promised")
        below.set_ylim(0, 1.02)
        below.set_title("coverage by day")
        below.legend(frameon=False, fontsize=8, loc="lower left")
        _date(below)
    return png_bytes(figure)


def _draw_course(axes: Axes, course: Course) -> None:
    places = course.times if course.times is not None else np.arange(len(course.levels))
    recent, later = course.is_recent, ~course.is_training
    trained = np.flatnonzero(course.is_training)[-TRAINED:]
    axes.plot(places[trained], course.levels[trained], color=GREY, linewidth=0.8)
    axes.plot(places[later], course.levels[later], color=BLUE, linewidth=1.2)
    if np.isfinite(course.low) and recent.any():
        ends = places[recent][[0, -1]]
        axes.fill_between(ends, course.low, course.high, color=ORANGE, alpha=0.3, linewidth=0)
        axes.hlines(float(np.nanmean(course.levels[recent])), ends[0], ends[-1], color=BLUE, linewidth=2.5)
    axes.set_title(course.column, fontsize=10)
    axes.set_ylabel("std", fontsize=8)
    axes.tick_params(labelsize=7)
    if course.times is not None:
        _date(axes)


def _date(axes: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call] # it has no types
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call] # nor has it
    axes.xaxis.get_offset_text().set_fontsize(7)


def _verdict(report: DriftReport) -> str:
    if report.is_broken:
        return f"Broken: {', '.join(each.name for each in report.quality)}. Nothing should be trained on these data."
    if report.is_drifted:
        return f"Drift: {', '.join(report.causes)}."
    if report.suspects:
        return f"Suspected: {', '.join(report.suspects)}."
    return "Nothing beyond chance."
