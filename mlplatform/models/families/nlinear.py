"""NLinear: one linear layer on last-value-normalised windows, trained by gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field
from typing_extensions import override

from mlplatform.config import SearchDimension
from mlplatform.models.networks import Batch, TorchModel, TorchParams
from mlplatform.plugins import MODELS

if TYPE_CHECKING:
    import torch

# Of all linear networks that are trained by gradient descent.
SEARCH_SPACE: Mapping[str, SearchDimension] = {
    "learning_rate": SearchDimension(type="float", low=5e-4, high=2e-2, log=True),
    "batch_size": SearchDimension(type="categorical", choices=(32, 64, 128)),
    "weight_decay": SearchDimension(type="float", low=1e-6, high=1e-2, log=True),
}


class NLinearParams(TorchParams):
    """The schedule of the paper's own experiments: the learning rate starts at 0.005 and halves every epoch."""

    learning_rate: float = Field(default=0.005, gt=0)


@MODELS.register("nlinear")
class NLinear(TorchModel):
    """NLinear (Zeng et al., Are Transformers Effective for Time Series Forecasting?, AAAI 2023).

    The last value is subtracted from the window, a linear layer shared by all targets maps lookback to horizon, and the
    last value is added back.
    """

    tasks = frozenset({"forecast"})
    Params = NLinearParams
    params: NLinearParams
    reads_targets_only = True

    @classmethod
    def example_params(cls) -> dict[str, Any]:
        """Few and small: quick to fit."""
        return {"max_epochs": 3, "batch_size": 16}

    @classmethod
    @override
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search step size, batch size and penalty."""
        return dict(SEARCH_SPACE)

    def build(self) -> torch.nn.Module:
        """Return a new module."""
        import torch

        class _NLinear(torch.nn.Module):
            def __init__(self, lookback: int, horizon: int) -> None:
                super().__init__()
                self.linear = torch.nn.Linear(lookback, horizon)

            def forward(self, batch: Batch) -> torch.Tensor:
                own = batch.past.transpose(1, 2)
                last = own[:, :, -1:]
                mapped: torch.Tensor = self.linear(own - last) + last
                return mapped.transpose(1, 2)

        return _NLinear(self.spec.lookback, self.spec.horizon)
