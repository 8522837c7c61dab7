"""Figures hold what people call their columns and entities."""

from __future__ import annotations

import warnings

from mlplatform.figures import new_figure, png_bytes


def test_names_longer_than_their_side_lose_their_middle_and_others_nothing() -> None:
    figure = new_figure(7.0, 3.2)
    axes = figure.add_subplot()
    axes.set_ylabel("temperature of " + "a very long pipe, " * 5 + "\N{DEGREE SIGN}C")
    axes.set_xlabel("time")
    axes.set_title("$cost$ of site/a")
    png_bytes(figure)
    label = axes.get_ylabel()
    assert label.startswith("temperature of a")
    assert label.endswith("pipe, \N{DEGREE SIGN}C")
    assert len(label) <= 35
    assert (axes.get_xlabel(), axes.get_title()) == ("time", "$cost$ of site/a")


def test_letters_that_the_font_lacks_are_no_warning() -> None:
    figure = new_figure(7.0, 3.2)
    figure.add_subplot().set_ylabel("\N{THERMOMETER}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert png_bytes(figure).startswith(b"\x89PNG")
