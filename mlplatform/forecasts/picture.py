"""One entity's forecast as a picture: what was measured, the points, and their intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplatform.datamodule import Float32
from mlplatform.figures import BLUE, GREY, new_figure, png_bytes
from mlplatform.forecasts.answering import Answered
from mlplatform.models import Bounds
from mlplatform.registry import Contract


@dataclass(frozen=True)
class Sample:
    """The forecast of one entity for the first target.

    Attributes:
        past_times, past: of shape (steps,): what the model read of the target, gaps as NaN.
        times, point: of shape (horizon,).
        bounds: of its intervals, the narrowest first, of the same shape; empty where there are none.
    """

    entity: Any
    target: str
    past_times: npt.NDArray[np.datetime64]
    past: Float32
    times: npt.NDArray[np.datetime64]
    point: Float32
    bounds: tuple[Bounds, ...]

    @classmethod
    def of(cls, answered: Answered, contract: Contract) -> Sample | None:
        """Return the first forecast among answers; `None` for rows of tables, which have no course."""
        if contract.task != "forecast":
            return None
        panel, target = answered.panel, contract.targets[0]
        past = slice(0, int(panel.offsets[1]) - contract.future_rows)
        first = answered.answers.map(lambda values: values[0, :, 0])
        return cls(
            entity=panel.entity_ids.tolist()[0],
            target=target,
            past_times=panel.timestamps[past],
            past=panel.columns[target][past].astype(np.float32),
            times=contract.moments_ahead(answered.origins[:1])[0],
            point=first.point,
            bounds=() if answered.is_fallback[0] else first.by_coverage,
        )


def plot_sample(sample: Sample) -> bytes:
    """Return the picture as a PNG."""
    figure = new_figure(8, 3)
    axes = figure.add_subplot()
    axes.plot(sample.past_times, sample.past, color=GREY, label="measured")
    axes.plot(sample.times, sample.point, color=BLUE, label="forecast")
    for lower, upper, _ in sample.bounds:
        axes.fill_between(sample.times, lower, upper, color=BLUE, alpha=0.2, linewidth=0)
    axes.set_title(f"{sample.target} of {sample.entity}")
    axes.set_xlabel("UTC")
    axes.legend(loc="upper left", frameon=False)
    return png_bytes(figure)
