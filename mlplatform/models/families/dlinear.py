"""DLinear: a linear layer each for the trend and the remainder of a window, trained by gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field
from typing_extensions import override

from mlplatform.config import SearchDimension
from mlplatform.models.families.nlinear import SEARCH_SPACE
from mlplatform.models.networks import Batch, TorchModel, TorchParams
from mlplatform.plugins import MODELS

if TYPE_CHECKING:
    import torch


class DLinearParams(TorchParams):
    """`kernel` is the length of the moving average; `individual` gives every target layers of its own."""

    learning_rate: float = Field(default=0.005, gt=0)
    kernel: int = Field(default=25, ge=3)
    individual: bool = False


@MODELS.register("dlinear")
class DLinear(TorchModel):
    """DLinear (Zeng et al., Are Transformers Effective for Time Series Forecasting?, AAAI 2023)."""

    tasks = frozenset({"forecast"})
    Params = DLinearParams
    params: DLinearParams
    reads_targets_only = True

    @classmethod
    def example_params(cls) -> dict[str, Any]:
        """Few and small: quick to fit."""
        return {"max_epochs": 3, "batch_size": 16}

    @classmethod
    @override
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search step size, batch size, penalty and whether targets share their layers."""
        return {**SEARCH_SPACE, "individual": SearchDimension(type="categorical", choices=(False, True))}

    def build(self) -> torch.nn.Module:
        """Return a new module."""
        import torch

        horizon, lookback = self.spec.horizon, self.spec.lookback
        kernel = self.params.kernel
        copies = len(self.spec.targets) if self.params.individual else 1

        class _DLinear(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                # As the paper's code starts: every step of the forecast is the mean of the window.
                self.trend = torch.nn.Parameter(torch.full((copies, lookback, horizon), 1 / lookback))
                self.rest = torch.nn.Parameter(torch.full((copies, lookback, horizon), 1 / lookback))
                self.bias = torch.nn.Parameter(torch.zeros(copies, 1, horizon))

            def forward(self, batch: Batch) -> torch.Tensor:
                own = batch.past.transpose(1, 2)
                sides = ((kernel - 1) // 2, kernel // 2)
                padded = torch.nn.functional.pad(own, sides, mode="replicate")
                trend = torch.nn.functional.avg_pool1d(padded, kernel, stride=1)
                rest = (own - trend).transpose(0, 1)
                mapped: torch.Tensor = trend.transpose(0, 1) @ self.trend + rest @ self.rest + self.bias
                return mapped.permute(1, 2, 0)

        return _DLinear()
