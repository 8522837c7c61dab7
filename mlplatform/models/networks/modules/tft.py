"""The Temporal Fusion Transformer as a module over batches: roles of the columns, level of the window, and the head."""

from __future__ import annotations

import torch
from torch import nn

from mlplatform.datamodule import ModelSpec
from mlplatform.models.networks.modules.fusion_transformer import Embedded, Embeddings, Fused, FusionTransformer
from mlplatform.models.networks.quantiles import add_level, outputs_per_step, shape_outputs
from mlplatform.models.networks.windows import Batch, calendar_angles, calendar_events

VARIANCE_FLOOR = 1e-4


class TFTModule(nn.Module):
    """From a batch to forecasts, or to quantiles that do not cross.

    The past variables are all columns that are not static, the future ones the known columns; both have those of the
    calendar beside them: its events among the numbers, and its angles.

    Parameters:
        width: of every layer; a multiple of `heads`.
        normalisation: of measured columns, per window: `none`, `last_value` (subtracted), or `last_value_scaled` (and
            divided by the standard deviation over the window).

    Attributes:
        static_names, past_names, future_names: the variables, in the order of their weights.
    """

    past_columns: torch.Tensor
    moving: torch.Tensor

    def __init__(self, spec: ModelSpec, width: int, heads: int, dropout: float, normalisation: str) -> None:
        super().__init__()
        self.spec, self.scaled = spec, normalisation == "last_value_scaled"
        counts = spec.cardinalities or (0,) * len(spec.channels)
        past = [place for place in range(len(spec.channels)) if place not in spec.static]
        # Known columns and codes keep their level: only measured columns move with the window.
        still = {*spec.known, *(place for place in past if counts[place])} - {*spec.targets}
        moving = [float(normalisation != "none" and place not in still) for place in past]
        self.register_buffer("past_columns", torch.tensor(past), persistent=False)
        self.register_buffer("moving", torch.tensor(moving), persistent=False)
        self.own = [past.index(place) for place in spec.targets]
        self.static = Embeddings([counts[place] for place in spec.static], 0, width)
        angles, events = calendar_angles(spec), calendar_events(spec)
        self.angles = len(angles)
        still_numbers = [0] * len(events)
        self.past = Embeddings([counts[place] for place in past] + still_numbers, len(angles), width)
        self.future = Embeddings([counts[place] for place in spec.known] + still_numbers, len(angles), width)
        self.static_names = self.static.names([spec.channels[place] for place in spec.static], ())
        self.past_names = self.past.names([*(spec.channels[place] for place in past), *events], angles)
        self.future_names = self.future.names([*(spec.channels[place] for place in spec.known), *events], angles)
        self.network = FusionTransformer(
            len(self.static_names), len(self.past_names), len(self.future_names), width, heads, dropout
        )
        self.head = nn.Linear(width, outputs_per_step(spec))

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return (batch, horizon, targets), or with quantiles (batch, horizon, targets, quantiles)."""
        past, level, scale = self._normalised(batch.past)
        outputs = shape_outputs(self.head(self._fuse(batch, past).steps), self.spec)
        if scale is not None:
            outputs = outputs * (scale[..., None] if self.spec.quantiles else scale)
        return add_level(outputs, level)

    def explain(self, batch: Batch) -> Fused:
        """Return what the network looked at."""
        return self._fuse(batch, self._normalised(batch.past)[0])

    def _fuse(self, batch: Batch, past: torch.Tensor) -> Fused:
        static = batch.static.T
        fused: Fused = self.network(
            self.static(static, static[:0]),
            self._embedded(self.past, past, batch.past_calendar),
            self._embedded(self.future, batch.future, batch.future_calendar),
            len(batch.static),
        )
        return fused

    def _embedded(self, embeddings: Embeddings, columns: torch.Tensor, calendar: torch.Tensor) -> Embedded:
        """Embed columns and calendar columns, both of shape (batch, steps, columns)."""
        angles, events = calendar.tensor_split([2 * self.angles], dim=-1)
        embedded: Embedded = embeddings(_rows(torch.cat([columns, events], dim=-1)), _rows(angles))
        return embedded

    def _normalised(self, channels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return the past columns without their level, and level and scale of the targets: (batch, 1, targets)."""
        past = channels[..., self.past_columns]
        level = past[:, -1:] * self.moving
        if not self.scaled:
            return past - level, level[..., self.own], None
        deviation = (past.var(dim=1, keepdim=True, correction=0) + VARIANCE_FLOOR).sqrt()
        scale = torch.where(self.moving > 0, deviation, 1.0)
        return (past - level) / scale, level[..., self.own], scale[..., self.own]


def _rows(values: torch.Tensor) -> torch.Tensor:
    """Turn (batch, steps, columns) into (columns, batch x steps)."""
    return values.permute(2, 0, 1).flatten(1)
