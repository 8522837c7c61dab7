"""LSTM: a recurrent encoder of the window, and a head that answers all steps of the horizon at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from typing_extensions import override

from mlplatform.config import SearchDimension
from mlplatform.models.networks import (
    Batch,
    TorchModel,
    TorchParams,
    add_level,
    calendar_width,
    outputs_per_step,
    shape_outputs,
)
from mlplatform.plugins import MODELS

if TYPE_CHECKING:
    import torch

EPSILON = 1e-5


class LSTMParams(TorchParams):
    """`normalisation` is per window: its last value, or its mean and deviation (Kim et al., RevIN, ICLR 2022).

    `linear_skip` adds a linear map from the window of every target to its horizon, as in NLinear: the recurrent part
    then learns what a linear model cannot say. `category_width` is the length of the vector that stands for a category.
    """

    learning_rate: float = Field(default=0.002, gt=0)
    schedule: Literal["constant", "exponential", "cosine", "one_cycle"] = "cosine"
    optimiser: Literal["adam", "adamw"] = "adamw"
    clip_norm: float | None = Field(default=1.0, gt=0)
    batch_size: int = Field(default=128, ge=1)
    hidden: int = Field(default=32, ge=1)
    layers: int = Field(default=1, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    normalisation: Literal["last_value", "revin"] = "last_value"
    linear_skip: bool = True
    category_width: int = Field(default=8, ge=1)


@MODELS.register("lstm")
class LSTM(TorchModel):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997) over windows normalised one by one.

    It reads the calendar, known and static columns. A category is read as a learned vector, one that training did not
    see as zeros.
    """

    tasks = frozenset({"forecast"})
    Params = LSTMParams
    params: LSTMParams
    covariates = frozenset({"known", "static", "calendar"})
    has_quantiles = True
    reads_calendar = True
    predict_batch = 1024

    @classmethod
    def example_params(cls) -> dict[str, Any]:
        """Few and small: quick to fit."""
        return {"max_epochs": 3, "batch_size": 16, "hidden": 8}

    @classmethod
    @override
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search step size, width, dropout and normalisation."""
        return {
            "learning_rate": SearchDimension(type="float", low=5e-4, high=1e-2, log=True),
            "hidden": SearchDimension(type="categorical", choices=(16, 32, 64)),
            "dropout": SearchDimension(type="float", low=0.0, high=0.4),
            "normalisation": SearchDimension(type="categorical", choices=("last_value", "revin")),
        }

    def build(self) -> torch.nn.Module:
        """Return a new module."""
        import torch

        from mlplatform.models.networks.modules import MixedColumns

        spec, params = self.spec, self.params
        counts = spec.cardinalities or (0,) * len(spec.channels)
        targets, revin = list(spec.targets), params.normalisation == "revin"
        # Covariates and codes keep their level: only measured columns move with the window.
        still = {*spec.known, *spec.static, *(place for place, count in enumerate(counts) if count)}
        moving = [float(place in targets or place not in still) for place in range(len(spec.channels))]

        class _LSTM(torch.nn.Module):
            moving: torch.Tensor

            def __init__(self) -> None:
                super().__init__()
                width = params.hidden
                self.past_columns = MixedColumns(counts, params.category_width)
                self.ahead_columns = MixedColumns(
                    [counts[place] for place in (*spec.known, *spec.static)], params.category_width
                )
                features = self.past_columns.size + calendar_width(spec)
                self.register_buffer("moving", torch.tensor(moving), persistent=False)
                self.gain = torch.nn.Parameter(torch.ones(len(spec.channels)))
                self.shift = torch.nn.Parameter(torch.zeros(len(spec.channels)))
                inner = params.dropout if params.layers > 1 else 0.0
                self.encoder = torch.nn.LSTM(features, width, params.layers, batch_first=True, dropout=inner)
                self.dropout = torch.nn.Dropout(params.dropout)
                self.spread = torch.nn.Linear(width, spec.horizon * width)
                self.ahead = torch.nn.Linear(self.ahead_columns.size + calendar_width(spec), width)
                self.head = torch.nn.Linear(width, outputs_per_step(spec))
                self.skip = torch.nn.Linear(spec.lookback, spec.horizon, bias=False) if params.linear_skip else None
                if self.skip is not None:
                    torch.nn.init.zeros_(self.skip.weight)

            def forward(self, batch: Batch) -> torch.Tensor:
                past = batch.past
                if revin:
                    deviation, level = torch.std_mean(past, dim=1, keepdim=True, correction=0)
                    scale = torch.where(self.moving > 0, deviation + EPSILON, torch.ones_like(deviation))
                    past = (past - level * self.moving) / scale * self.gain + self.shift
                else:
                    level = past[:, -1:]
                    past = past - level * self.moving
                inputs = self.past_columns(past, batch.past)
                _, (state, _) = self.encoder(torch.cat([inputs, batch.past_calendar], dim=-1))
                steps = self.spread(self.dropout(state[-1])).unflatten(-1, (spec.horizon, params.hidden))
                static = batch.static[:, None].expand(-1, spec.horizon, -1)
                planned = torch.cat([batch.future, static], dim=-1)
                planned = self.ahead_columns(planned, planned)
                ahead = self.ahead(torch.cat([planned, batch.future_calendar], dim=-1))
                answers = shape_outputs(self.head(self.dropout(torch.nn.functional.gelu(steps + ahead))), spec)
                if self.skip is not None:
                    answers = add_level(answers, self.skip(past[..., targets].transpose(1, 2)).transpose(1, 2))
                if revin:
                    own = scale[..., targets]
                    answers = answers * (own[..., None] if spec.quantiles else own)
                return add_level(answers, level[..., targets])

        return _LSTM()
