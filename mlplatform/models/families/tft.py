"""Temporal Fusion Transformer: static, past and known inputs, and weights that say which of them it used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from typing_extensions import override

from mlplatform.config import SearchDimension
from mlplatform.datamodule import Float32, WindowSamples
from mlplatform.models.base import as_float32
from mlplatform.models.explanation import VariableWeights
from mlplatform.models.networks import TorchModel, TorchParams
from mlplatform.plugins import MODELS

if TYPE_CHECKING:
    import torch


class TFTParams(TorchParams):
    """`hidden` is the width of every layer, and a multiple of `heads`.

    `normalisation` is per window: `last_value` subtracts the last value of every measured column, so that the forecast
    moves with the level; `last_value_scaled` also divides by the column's standard deviation over the window; `none`
    keeps the level as an input, for series that return to the same levels.
    """

    schedule: Literal["constant", "exponential", "cosine", "one_cycle"] = "cosine"
    optimiser: Literal["adam", "adamw"] = "adamw"
    clip_norm: float | None = Field(default=1.0, gt=0)
    batch_size: int = Field(default=64, ge=1)
    hidden: int = Field(default=16, ge=4, multiple_of=4)
    heads: Literal[1, 2, 4] = 4
    dropout: float = Field(default=0.1, ge=0, lt=1)
    normalisation: Literal["none", "last_value", "last_value_scaled"] = "last_value"


@dataclass(frozen=True)
class Interpretation:
    """What a fitted network looked at, on average over samples.

    Attributes:
        static, past, future: weight of every variable by name; each adds up to one. `static` is empty without static
            columns; `past` is also averaged over the input steps, `future` over the horizon.
        attention: of every step of the horizon (first dimension) to all steps up to itself, the input steps first, of
            shape (horizon, lookback + horizon); rows add up to one.
    """

    static: dict[str, float]
    past: dict[str, float]
    future: dict[str, float]
    attention: Float32

    @property
    def lag_attention(self) -> Float32:
        """Attention to the step `k` steps before the origin at position `k`, averaged over the horizon: (lookback,)."""
        horizon, steps = self.attention.shape
        return as_float32(self.attention[:, : steps - horizon].mean(axis=0)[::-1])


@MODELS.register("tft")
class TFT(TorchModel):
    """Temporal Fusion Transformer (Lim et al., 2021)."""

    tasks = frozenset({"forecast"})
    Params = TFTParams
    params: TFTParams
    covariates = frozenset({"known", "static", "calendar"})
    has_quantiles = True
    reads_calendar = True
    explains = "weights"
    predict_batch = 256

    @classmethod
    def example_params(cls) -> dict[str, Any]:
        """Few and small: quick to fit."""
        return {"max_epochs": 2, "batch_size": 32, "hidden": 8}

    @classmethod
    @override
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search step size, width, heads and dropout."""
        return {
            "learning_rate": SearchDimension(type="float", low=3e-4, high=1e-2, log=True),
            "hidden": SearchDimension(type="categorical", choices=(8, 16, 32, 64)),
            "heads": SearchDimension(type="categorical", choices=(1, 2, 4)),
            "dropout": SearchDimension(type="float", low=0.0, high=0.4),
        }

    def build(self) -> torch.nn.Module:
        """Return a new module."""
        from mlplatform.models.networks.modules import TFTModule

        params = self.params
        return TFTModule(self.spec, params.hidden, params.heads, params.dropout, params.normalisation)

    @override
    def explain(self, samples: WindowSamples) -> tuple[VariableWeights, ...]:
        """Return the weights of the variables, sample by sample."""
        found = (self.interpret(samples.select(np.array([place]))) for place in range(len(samples)))
        return tuple(
            VariableWeights(each.static, each.past, each.future, tuple(each.lag_attention.tolist())) for each in found
        )

    def interpret(self, samples: WindowSamples) -> Interpretation:
        """Return the mean weights over all samples; only one batch is in memory at a time.

        Raises:
            ValueError: if there are no samples.
        """
        import torch

        from mlplatform.models.networks.modules import TFTModule

        if not len(samples):
            raise ValueError("there are no samples to interpret the forecasts of: give at least one")
        module = self.module
        assert isinstance(module, TFTModule)
        tensors = self.tensors(samples)
        spec = self.spec
        static, past, future = (
            np.zeros(len(names)) for names in (module.static_names, module.past_names, module.future_names)
        )
        attention = np.zeros((spec.horizon, spec.lookback + spec.horizon))
        module.eval()
        with torch.inference_mode():
            for chosen in torch.split(torch.arange(len(samples)), self.predict_batch):
                fused = module.explain(tensors.batch(chosen))
                if fused.static_weights is not None:
                    static += fused.static_weights.double().sum(dim=0).numpy()
                past += fused.past_weights.double().mean(dim=1).sum(dim=0).numpy()
                future += fused.future_weights.double().mean(dim=1).sum(dim=0).numpy()
                attention += fused.attention.double().sum(dim=0).numpy()
        count = len(samples)
        return Interpretation(
            static=_named(module.static_names, static / count),
            past=_named(module.past_names, past / count),
            future=_named(module.future_names, future / count),
            attention=as_float32(attention / count),
        )


def _named(names: Sequence[str], weights: npt.NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(names, weights.tolist(), strict=True))
