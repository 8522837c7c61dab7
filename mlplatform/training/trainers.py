"""The trainers: how a model of either kind is fitted.

Models that fit themselves (boosted trees, closed forms, naive rules) go through `MLTrainer`; neural networks through
`DLTrainer`, which owns the loop: shuffling, optimiser, learning-rate schedule, early stopping and the best weights.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mlplatform.datamodule.samples import Samples, WindowSamples
from mlplatform.models.base import DirectFitModel, FitResult, Iterations, Model, ProgressCallback, TorchModel

if TYPE_CHECKING:
    import torch

EVALUATION_BATCH = 4096


class Trainer(ABC):
    """Fits models of one kind."""

    @abstractmethod
    def fit(
        self,
        model: Model,
        train: Samples,
        validation: Samples | None,
        *,
        iterations: Iterations | None = None,
        seed: int = 0,
        on_progress: ProgressCallback | None = None,
    ) -> FitResult:
        """Fit `model` in place; parameters as in `DirectFitModel.fit`."""


class MLTrainer(Trainer):
    """Lets the model fit itself."""

    def fit(
        self,
        model: Model,
        train: Samples,
        validation: Samples | None,
        *,
        iterations: Iterations | None = None,
        seed: int = 0,
        on_progress: ProgressCallback | None = None,
    ) -> FitResult:
        """Fit `model`."""
        assert isinstance(model, DirectFitModel)
        return model.fit(train, validation, iterations=iterations, seed=seed, on_progress=on_progress)


class DLTrainer(Trainer):
    """Mini-batch gradient descent with Adam on the mean squared error in preprocessed space."""

    def fit(
        self,
        model: Model,
        train: Samples,
        validation: Samples | None,
        *,
        iterations: Iterations | None = None,
        seed: int = 0,
        on_progress: ProgressCallback | None = None,
    ) -> FitResult:
        """Fit `model`; with validation data its weights are those of the best epoch."""
        assert isinstance(model, TorchModel)
        assert isinstance(train, WindowSamples)
        assert validation is None or isinstance(validation, WindowSamples)
        with _threads(model.params.threads):
            return self._fit(model, train, validation, iterations, seed, on_progress)

    def _fit(
        self,
        model: TorchModel,
        train: WindowSamples,
        validation: WindowSamples | None,
        iterations: Iterations | None,
        seed: int,
        on_progress: ProgressCallback | None,
    ) -> FitResult:
        import torch

        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        params = model.params
        model.module = model.build()
        optimiser = torch.optim.Adam(
            model.module.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, gamma=params.decay)
        epochs = iterations[0] if iterations else params.max_epochs
        best_loss, best_epoch, best_weights = float("inf"), 0, None
        history: list[float] = []
        for epoch in range(epochs):
            _run_epoch(model.module, optimiser, train, params.batch_size, generator)
            schedule.step()
            if validation is None:
                continue
            history.append(_loss(model.module, validation))
            if history[-1] < best_loss:
                best_loss, best_epoch = history[-1], epoch + 1
                best_weights = {name: value.clone() for name, value in model.module.state_dict().items()}
            if on_progress is not None:
                on_progress(epoch, best_loss)
            if iterations is None and epoch + 1 - best_epoch >= params.patience:
                break
        if best_weights is not None and iterations is None:
            model.module.load_state_dict(best_weights)
            return FitResult((best_epoch,), tuple(history))
        return FitResult((epochs,), tuple(history))


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run_epoch(
    module: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    samples: WindowSamples,
    batch_size: int,
    generator: torch.Generator,
) -> None:
    import torch

    module.train()
    order = torch.randperm(len(samples), generator=generator)
    for inputs, outputs in _batches(samples, order, batch_size):
        optimiser.zero_grad(set_to_none=True)
        loss = torch.nn.functional.mse_loss(module(inputs), outputs)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def _loss(module: torch.nn.Module, samples: WindowSamples) -> float:
    import torch

    module.eval()
    total = 0.0
    with torch.inference_mode():
        order = torch.arange(len(samples))
        for inputs, outputs in _batches(samples, order, EVALUATION_BATCH):
            total += float(torch.nn.functional.mse_loss(module(inputs), outputs)) * len(inputs)
    return total / len(samples)


def _batches(
    samples: WindowSamples, order: torch.Tensor, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (batch, lookback, channels) inputs and (batch, horizon, targets) outputs.

    Windows are an `unfold` view of one contiguous (channels, time) tensor; only a batch's own rows are ever copied.
    """
    import torch

    if "series" not in samples.cache:
        samples.cache["series"] = torch.from_numpy(np.ascontiguousarray(samples.values.T))
    series: torch.Tensor = samples.cache["series"]
    past = series.unfold(1, samples.lookback, 1).transpose(0, 1)
    future = series[list(samples.targets)].unfold(1, samples.horizon, 1).transpose(0, 1)
    origins = torch.from_numpy(samples.origins)[order]
    for chosen in torch.split(origins, batch_size):
        inputs, outputs = past[chosen - (samples.lookback - 1)], future[chosen + 1]
        yield inputs.transpose(1, 2), outputs.transpose(1, 2)


def trainer_for(model: Model) -> Trainer:
    """Return the trainer that fits `model`."""
    return DLTrainer() if isinstance(model, TorchModel) else MLTrainer()
