"""NLinear: one linear layer on last-value-normalised windows, trained by gradient descent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from mlplatform.config import SearchDimension
from mlplatform.datamodule.panel import Float32
from mlplatform.datamodule.samples import Samples, WindowSamples
from mlplatform.models.base import TorchModel, TorchParams
from mlplatform.plugins import MODELS

if TYPE_CHECKING:
    import torch

PREDICT_BATCH = 4096


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

    @classmethod
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search step size, batch size and penalty."""
        del task
        return {
            "learning_rate": SearchDimension(type="float", low=5e-4, high=2e-2, log=True),
            "batch_size": SearchDimension(type="categorical", choices=(32, 64, 128)),
            "weight_decay": SearchDimension(type="float", low=1e-6, high=1e-2, log=True),
        }

    def build(self) -> torch.nn.Module:
        """Return a new module."""
        import torch

        targets = list(self.spec.targets)
        all_channels = targets == list(range(len(self.spec.channels)))

        class _NLinear(torch.nn.Module):
            def __init__(self, lookback: int, horizon: int) -> None:
                super().__init__()
                self.linear = torch.nn.Linear(lookback, horizon)

            def forward(self, inputs: torch.Tensor) -> torch.Tensor:
                own = inputs.transpose(1, 2)
                if not all_channels:
                    own = own[:, targets]
                last = own[:, :, -1:]
                mapped: torch.Tensor = self.linear(own - last) + last
                return mapped.transpose(1, 2)

        return _NLinear(self.spec.lookback, self.spec.horizon)

    def predict(self, samples: Samples) -> Float32:
        """Return the forecast."""
        import torch

        assert isinstance(samples, WindowSamples)
        self.module.eval()
        out = np.empty((len(samples), self.spec.horizon, len(self.spec.targets)), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(samples), PREDICT_BATCH):
                batch = torch.from_numpy(samples.inputs(slice(start, start + PREDICT_BATCH)))
                out[start : start + PREDICT_BATCH] = self.module(batch).numpy()
        return out

    def save(self, folder: Path) -> None:
        """Write the weights."""
        from safetensors.torch import save_file

        save_file(self.module.state_dict(), folder / "weights.safetensors")

    def restore(self, folder: Path) -> None:
        """Read the weights."""
        from safetensors.torch import load_file

        self.module = self.build()
        self.module.load_state_dict(load_file(folder / "weights.safetensors"))
