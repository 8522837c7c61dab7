"""The deep-learning trainer: the mini-batch loop, early stopping with the best weights, and resuming a killed fit."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlplatform.datamodule import WindowSamples
from mlplatform.models import FitOptions, FitResult
from mlplatform.models.networks import TorchModel, WindowTensors
from mlplatform.training.checkpoints import claimed, read_checkpoint, remove_checkpoint, write_checkpoint
from mlplatform.training.schedules import learning_rate

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

EVALUATION_BATCH = 4096


@dataclass
class _Progress:
    """What a fit knows after some epochs, beside its weights."""

    epoch: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    history: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)


def fit_network(
    model: TorchModel, train: WindowSamples, validation: WindowSamples | None, options: FitOptions
) -> FitResult:
    """Fit `model` by gradient descent on the squared error or, with quantiles, on their joint pinball loss.

    With validation data, and without fixed iterations, its weights are those of the best epoch.

    A fit that ends, or that `on_progress` abandons, leaves no checkpoint; any other error leaves the latest one.

    Raises:
        TypeError, ValueError: if the network cannot be fitted to these samples.
        FloatingPointError: if the loss is no longer a number.
    """
    model.check_samples(train, validation)
    with _threads(model.params.threads):
        if options.checkpoint is None:
            return _Fit(model, train, validation, options).run()
        with claimed(options.checkpoint) as is_own:
            if not is_own:
                logger.warning("another fit is using the checkpoint %s: this one keeps none", options.checkpoint)
                options = replace(options, checkpoint=None)
            return _Fit(model, train, validation, options).run()


class _Fit:
    def __init__(
        self, model: TorchModel, train: WindowSamples, validation: WindowSamples | None, options: FitOptions
    ) -> None:
        import torch

        self.model, self.params, self.options = model, model.params, options
        device = self.params.device
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        on_gpu = self.device == "cuda"
        self.bfloat16 = self.params.precision == "bfloat16" or (self.params.precision == "auto" and on_gpu)
        torch.manual_seed(options.seed)
        self.generator = torch.Generator().manual_seed(options.seed)
        self.module = model.build().to(self.device)
        kind = torch.optim.AdamW if self.params.optimiser == "adamw" else torch.optim.Adam
        self.optimiser = kind(_groups(self.module, self.params.weight_decay), lr=self.params.learning_rate, fused=True)
        self.train = model.tensors(train, self.device)
        self.validation = None
        if validation is not None and len(validation):
            self.validation = model.tensors(validation, self.device)
        self.levels = torch.tensor(model.spec.quantiles, device=self.device)
        self.progress = _Progress()
        self.best_weights: dict[str, torch.Tensor] | None = None
        self.written = time.monotonic()

    def run(self) -> FitResult:
        from tqdm import tqdm

        epochs = self.options.iterations[0] if self.options.iterations else self.params.max_epochs
        if self.options.checkpoint is not None:
            self._resume(self.options.checkpoint)
        state = self.progress
        with tqdm(total=epochs, initial=state.epoch, desc="epochs", disable=None, leave=False) as bar:
            while state.epoch < epochs and not self._has_stopped():
                self._epoch()
                self._keep()
                bar.update()
                if self.validation is not None:
                    bar.set_postfix(validation=f"{state.history[-1]:.5f}")
                    self._report(state.epoch - 1, state.best_loss)
        length = state.epoch
        if self.best_weights is not None and not self.options.iterations:
            self.module.load_state_dict(self.best_weights)
            length = state.best_epoch
        self.model.module = self.module.cpu()
        if self.options.checkpoint is not None:
            remove_checkpoint(self.options.checkpoint)
        curves = {"train_loss": tuple(state.train_loss), "learning_rate": tuple(state.learning_rate)}
        return FitResult((length,), tuple(state.history), curves)

    def _keep(self) -> None:
        """Write the checkpoint, if it is time."""
        folder, now = self.options.checkpoint, time.monotonic()
        if folder is None or now - self.written < self.options.checkpoint_seconds:
            return
        write_checkpoint(folder, self._state())
        self.written = time.monotonic()

    def _report(self, step: int, loss: float) -> None:
        if self.options.on_progress is None:
            return
        try:
            self.options.on_progress(step, loss)
        except Exception:
            if self.options.checkpoint is not None:
                remove_checkpoint(self.options.checkpoint)
            raise

    def _has_stopped(self) -> bool:
        if self.validation is None or self.options.iterations:
            return False
        return self.progress.epoch - self.progress.best_epoch >= self.params.patience

    def _epoch(self) -> None:
        state = self.progress
        state.train_loss.append(self._descend())
        state.learning_rate.append(self.optimiser.param_groups[0]["lr"])
        self._check(state.train_loss[-1], "training")
        state.epoch += 1
        if self.validation is None:
            return
        state.history.append(self._evaluate(self.validation))
        if state.history[-1] < state.best_loss:
            state.best_loss, state.best_epoch = state.history[-1], state.epoch
            self.best_weights = {name: value.clone() for name, value in self.module.state_dict().items()}

    def _check(self, loss: float, name: str) -> None:
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the {name} loss is {loss} in epoch {self.progress.epoch + 1}, expected a number: lower "
                f"learning_rate (now {self.params.learning_rate}) or set clip_norm (now {self.params.clip_norm})"
            )

    def _descend(self) -> float:
        import torch

        self.module.train()
        order = torch.randperm(len(self.train.samples), generator=self.generator)[: self.params.max_windows_per_epoch]
        total = torch.zeros((), device=self.device)
        steps = math.ceil(len(order) / self.params.batch_size)
        for step, (batch, outputs) in enumerate(self.train.batches(order, self.params.batch_size)):
            rate = learning_rate(self.params, self.progress.epoch + step / steps)
            if rate != self.optimiser.param_groups[0]["lr"]:
                for group in self.optimiser.param_groups:
                    group["lr"] = rate
            self.optimiser.zero_grad(set_to_none=True)
            loss = self._loss(self._forward(batch), outputs)
            loss.backward()  # type: ignore[no-untyped-call]
            if self.params.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.params.clip_norm)
            self.optimiser.step()
            total += loss.detach() * len(outputs)
        return float(total) / max(len(order), 1)

    def _forward(self, batch: Any) -> torch.Tensor:
        import torch

        if not self.bfloat16:
            outputs: torch.Tensor = self.module(batch)
            return outputs
        with torch.autocast(self.device, torch.bfloat16), _kernels_that_exist(self.device):
            outputs = self.module(batch)
        return outputs.float()

    def _evaluate(self, tensors: WindowTensors) -> float:
        import torch

        self.module.eval()
        total = 0.0
        with torch.inference_mode():
            size = min(EVALUATION_BATCH, self.model.predict_batch)
            for batch, outputs in tensors.batches(torch.arange(len(tensors.samples)), size):
                total += float(self._loss(self._forward(batch), outputs)) * len(outputs)
        return total / len(tensors.samples)

    def _loss(self, answers: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        import torch

        if not len(self.levels):
            return torch.nn.functional.mse_loss(answers, outputs)
        error = outputs[..., None] - answers
        return torch.maximum(self.levels * error, (self.levels - 1) * error).mean()

    @functools.cached_property
    def _identity(self) -> dict[str, str]:
        """Return what a fit is the same by, part by part; the data are read once per fit."""
        import torch

        samples = [self.train.samples, *([self.validation.samples] if self.validation is not None else [])]
        shapes = {name: list(value.shape) for name, value in self.module.state_dict().items()}
        parts: dict[str, Any] = {
            "model": [type(self.model).__name__, vars(self.model.spec), torch.__version__, shapes],
            "parameters": [self.params.model_dump(mode="json"), self.device],
            "seed or iterations": [self.options.seed, self.options.iterations],
            "data": [[_checksum(part.values), _checksum(part.origins), _checksum(part.timestamps)] for part in samples],
        }
        return {name: json.dumps(part) for name, part in parts.items()}

    def _state(self) -> dict[str, Any]:
        import torch

        return {
            "identity": self._identity,
            "weights": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "best_weights": self.best_weights,
            "progress": vars(self.progress),
            "order_random": self.generator.get_state(),
            "random": torch.get_rng_state(),
            "gpu_random": torch.cuda.get_rng_state() if self.device == "cuda" else None,
        }

    def _resume(self, folder: Path) -> None:
        import torch

        state = read_checkpoint(folder, self._identity) if folder.exists() else None
        if state is None:
            return
        self.module.load_state_dict(state["weights"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best_weights = state["best_weights"]
        self.progress = _Progress(**state["progress"])
        self.generator.set_state(state["order_random"])
        torch.set_rng_state(state["random"])
        if state["gpu_random"] is not None:
            torch.cuda.set_rng_state(state["gpu_random"])
        logger.warning("going on with the interrupted fit in %s after epoch %d", folder, self.progress.epoch)
        best = math.inf
        for step, loss in enumerate(self.progress.history):
            # Whoever judges the fit by its progress has not heard the first part of it.
            best = min(best, loss)
            self._report(step, best)


def _groups(module: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the optimiser's groups: weight decay pulls matrices towards zero, but neither offsets nor gains."""
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for value in module.parameters():
        is_vector = value.ndim < 2 or value.shape[-2] == 1
        groups.setdefault(0.0 if is_vector else weight_decay, []).append(value)
    return [{"params": group, "weight_decay": decay} for decay, group in groups.items()]


def _checksum(values: npt.NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _kernels_that_exist(device: str) -> Iterator[None]:
    """Keep oneDNN out of bfloat16 on processors that it has no recurrent kernels for: it would raise, not fall back."""
    import torch

    if device != "cpu" or "AVX512" in torch.backends.cpu.get_cpu_capability():
        yield
        return
    with torch.backends.mkldnn.flags(enabled=False):
        yield
