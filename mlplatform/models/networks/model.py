"""What every neural network shares: its training parameters, prediction in batches, and storage."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from mlplatform.datamodule import Float32, WindowSamples
from mlplatform.models.base import Model, ModelParams
from mlplatform.models.networks.windows import WindowTensors

if TYPE_CHECKING:
    import torch


class TorchParams(ModelParams):
    """Hyperparameters that the deep-learning trainer reads from every network.

    `schedule` moves the learning rate: `exponential` multiplies it by `decay` after every epoch, `cosine` lowers it to
    zero over `max_epochs`, `one_cycle` raises it first; `warmup_epochs` come before any of them. `clip_norm` bounds the
    norm of the gradient. `patience` is the number of epochs without a better validation loss after which training
    stops. `max_windows_per_epoch` trains every epoch on a fresh random part of the windows. `device` is where the
    fit runs and `precision` how it multiplies; `auto` takes a GPU, and bfloat16 on it, where there is one.
    `threads` is one by default: on small batches threads wait for each other longer than they work, and the sums of
    one thread do not depend on the machine's load.
    """

    learning_rate: float = Field(default=0.001, gt=0)
    schedule: Literal["constant", "exponential", "cosine", "one_cycle"] = "exponential"
    decay: float = Field(default=0.5, gt=0, le=1)
    warmup_epochs: int = Field(default=0, ge=0)
    optimiser: Literal["adam", "adamw"] = "adam"
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=32, ge=1)
    max_epochs: int = Field(default=10, ge=1)
    max_windows_per_epoch: int | None = Field(default=None, ge=1)
    patience: int = Field(default=3, ge=1)
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=1, ge=1)


class TorchModel(Model[WindowSamples]):
    """A neural network; the deep-learning trainer runs its loop over `module`.

    Class attributes:
        reads_calendar: whether its batches carry calendar features.
        predict_batch: samples per forward pass of a prediction.
    """

    reads_calendar: ClassVar[bool] = False
    predict_batch: ClassVar[int] = 4096
    params: TorchParams
    module: torch.nn.Module

    @abstractmethod
    def build(self) -> torch.nn.Module:
        """Return a new module.

        Its forward maps a `Batch` to (batch, horizon, targets), or with quantiles in the spec to (batch, horizon,
        targets, quantiles) that do not cross.
        """

    def tensors(self, samples: WindowSamples, device: str = "cpu") -> WindowTensors:
        """Return the batches of samples, with no more in them than the network asks for."""
        return WindowTensors(samples, self.reads_calendar, device, self.reads_targets_only, self.covariates, self.spec)

    def predict(self, samples: WindowSamples) -> Float32:
        """Return the forecast; with quantiles, their median."""
        outputs = self._forward(samples)
        if not self.spec.quantiles:
            return outputs
        return np.ascontiguousarray(outputs[..., self.spec.quantile_position(0.5)])

    def predict_quantiles(self, samples: WindowSamples) -> Float32:
        """Return the forecast's quantiles."""
        return self._forward(samples) if self.spec.quantiles else super().predict_quantiles(samples)

    def _forward(self, samples: WindowSamples) -> Float32:
        import torch

        shape: tuple[int, ...] = (len(samples), self.spec.horizon, len(self.spec.targets))
        out = np.empty(shape + ((len(self.spec.quantiles),) if self.spec.quantiles else ()), dtype=np.float32)
        if not len(samples):
            return out
        tensors = self.tensors(samples)
        self.module.eval()
        with torch.inference_mode():
            for chosen in torch.split(torch.arange(len(samples)), self.predict_batch):
                outputs = self.module(tensors.batch(chosen)).float()
                out[int(chosen[0]) : int(chosen[-1]) + 1] = tensors.restored(outputs, chosen).numpy()
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
