"""The contract every model family keeps.

A model sees preprocessed samples only and answers in preprocessed space; units are the preprocessor's business. It
stores itself without pickle. Fitting belongs to training, but the arithmetic of a family's fit lives with the family
(`fit`), except for neural networks, whose loop is shared by the deep-learning trainer.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mlplatform.config import SearchDimension
from mlplatform.datamodule.panel import Float32
from mlplatform.datamodule.samples import Samples
from mlplatform.datamodule.spec import ModelSpec
from mlplatform.plugins import MODELS

if TYPE_CHECKING:
    import torch

Iterations = tuple[int, ...]
ProgressCallback = Callable[[int, float], None]


class ModelParams(BaseModel):
    """Base of a family's hyperparameters: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class FitResult:
    """What a fit reports back.

    Attributes:
        iterations: boosting rounds or epochs in use after early stopping, one number per sub-model.
        history: validation loss per iteration, in preprocessed space; empty without validation data.
    """

    iterations: Iterations = ()
    history: tuple[float, ...] = ()


class Model(ABC):
    """A model family.

    Class attributes:
        tasks: what the family can be used for.
        Params: its hyperparameters.
        is_naive: whether it is a rule so simple that a candidate must beat it to be promoted.
    """

    tasks: ClassVar[frozenset[str]]
    Params: ClassVar[type[ModelParams]]
    is_naive: ClassVar[bool] = False

    def __init__(self, params: ModelParams, spec: ModelSpec) -> None:
        self.params = params
        self.spec = spec

    @classmethod
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Return the default search space for a task; empty when there is nothing to tune."""
        del task
        return {}

    @classmethod
    def least_lookback(cls, params: Any) -> int:
        """Return the shortest lookback, in steps, that a forecast with these parameters can work with."""
        del params
        return 1

    @abstractmethod
    def predict(self, samples: Samples) -> Float32:
        """Predict in preprocessed space.

        Returns:
            Forecast: of shape (samples, horizon, targets). Regression: of shape (samples,).
            Classification: probabilities of shape (samples, classes).
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the fitted state into an existing, empty folder, without pickle."""

    @abstractmethod
    def restore(self, folder: Path) -> None:
        """Read the fitted state that `save` wrote."""


class DirectFitModel(Model):
    """A family that fits itself (boosted trees, closed forms, naive rules); run by the machine-learning trainer."""

    @abstractmethod
    def fit(
        self,
        train: Samples,
        validation: Samples | None,
        *,
        iterations: Iterations | None = None,
        seed: int = 0,
        on_progress: ProgressCallback | None = None,
    ) -> FitResult:
        """Fit on `train`.

        Parameters:
            validation: stops early where the family can; `None` fits the full budget.
            iterations: fixed numbers of iterations, as an earlier `FitResult` reported; turns early stopping off.
            on_progress: called with (step, validation loss so far); may raise to abandon the fit.
        """


class TorchParams(ModelParams):
    """Hyperparameters that the deep-learning trainer reads from every network.

    The learning rate is multiplied by `decay` after every epoch. `patience` is the number of epochs without a better
    validation loss after which training stops. `threads` is one by default: on small batches threads wait for each
    other longer than they work, and the sums of one thread do not depend on the machine's load.
    """

    learning_rate: float = Field(default=0.001, gt=0)
    batch_size: int = Field(default=32, ge=1)
    max_epochs: int = Field(default=10, ge=1)
    patience: int = Field(default=3, ge=1)
    weight_decay: float = Field(default=0.0, ge=0)
    decay: float = Field(default=0.5, gt=0, le=1)
    threads: int = Field(default=1, ge=1)


class TorchModel(Model):
    """A neural network; the deep-learning trainer runs its loop over `module`."""

    params: TorchParams
    module: torch.nn.Module

    @abstractmethod
    def build(self) -> torch.nn.Module:
        """Return a new module; its forward maps (batch, lookback, channels) to (batch, horizon, targets)."""


def create_model(family: str, params: Mapping[str, Any], spec: ModelSpec) -> Model:
    """Return an unfitted model of the family called `family`."""
    plugin = MODELS.get(family)
    model: Model = plugin(plugin.Params.model_validate(dict(params)), spec)
    return model


def save_model(model: Model, family: str, folder: Path) -> None:
    """Write a fitted model and what is needed to rebuild it into `folder`, which must not exist."""
    folder.mkdir(parents=True)
    header = {"family": family, "params": model.params.model_dump(mode="json"), "spec": vars(model.spec)}
    (folder / "model.json").write_text(json.dumps(header, indent=1))
    state = folder / "state"
    state.mkdir()
    model.save(state)


def load_model(folder: Path) -> Model:
    """Read a model that `save_model` wrote."""
    header = json.loads((folder / "model.json").read_text())
    model = create_model(header["family"], header["params"], ModelSpec.from_json(header["spec"]))
    model.restore(folder / "state")
    return model


def as_float32(values: Any) -> Float32:
    """Return values as a C-contiguous float32 array."""
    return np.ascontiguousarray(values, dtype=np.float32)
