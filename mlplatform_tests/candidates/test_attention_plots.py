"""Plots of a Temporal Fusion Transformer: which there are, and what is drawn in them."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from mlplatform.candidates import attention_plots
from mlplatform.candidates.attention_plots import attention_plot, interpretation_plots, variables_plot
from mlplatform.datamodule.samples import WindowSamples
from mlplatform.models.base import FitOptions, Model, create_model
from mlplatform.models.families.tft import Interpretation
from mlplatform.plugins import MODELS
from mlplatform.testing.model_samples import spec_for, windows
from mlplatform.training.trainers import trainer_for


def fitted(family: str) -> tuple[Model, WindowSamples]:
    samples = windows()
    model = create_model(family, MODELS.get(family).example_params(), spec_for("forecast"))
    trainer_for(model).fit(model, samples, None, FitOptions(iterations=(1,)))
    return model, samples


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def weights(names: list[str]) -> dict[str, float]:
    return {name: 1 / len(names) for name in names}


def test_a_fusion_transformer_has_two_plots_and_other_families_none() -> None:
    model, samples = fitted("tft")
    plots = interpretation_plots(model, samples)
    assert set(plots) == {"variables", "attention"}
    assert all(min(size(png)) > 200 for png in plots.values())
    assert interpretation_plots(*fitted("nlinear")) == {}


def test_without_samples_there_is_nothing_to_plot() -> None:
    model, samples = fitted("tft")
    assert interpretation_plots(model, samples.select(np.zeros(0, dtype=np.int64))) == {}


def test_every_kind_of_input_that_there_is_gets_a_panel() -> None:
    attention = np.full((2, 5), 0.2, dtype=np.float32)
    without = Interpretation({}, weights(["a", "b"]), weights(["c"]), attention)
    with_static = Interpretation(weights(["s"]), weights(["a", "b"]), weights(["c"]), attention)
    assert size(variables_plot(with_static))[0] == pytest.approx(size(variables_plot(without))[0] * 3 / 2, abs=2)


def test_many_variables_do_not_make_an_endless_picture() -> None:
    attention = np.full((2, 5), 0.2, dtype=np.float32)
    many = Interpretation({}, weights([f"column {k}" for k in range(300)]), weights(["c"]), attention)
    assert size(variables_plot(many))[1] < 1000


def test_attention_is_drawn_at_the_steps_it_belongs_to(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(attention_plots, "png_bytes", lambda figure: figures.append(figure) or b"")
    attention = np.array([[0.1, 0.2, 0.7, 0.0], [0.3, 0.1, 0.2, 0.4]], dtype=np.float32)
    attention_plot(Interpretation({}, weights(["a"]), weights(["c"]), attention))
    first, last, mean = figures[0].axes[0].lines
    assert list(first.get_xdata()) == [-1, 0]
    np.testing.assert_allclose(first.get_ydata(), [0.1, 0.2])
    np.testing.assert_allclose(last.get_ydata(), [0.3, 0.1])
    np.testing.assert_allclose(mean.get_ydata(), [0.2, 0.15])
