"""The trainers: how a model of either kind is fitted.

Models that fit themselves (boosted trees, closed forms, naive rules) go through `MLTrainer`; neural networks through
`DLTrainer`, whose loop is in `dl_trainer`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from mlplatform.datamodule import Samples, WindowSamples
from mlplatform.models import DEFAULT_OPTIONS, DirectFitModel, FitOptions, FitResult, Model
from mlplatform.models.networks import TorchModel
from mlplatform.training.dl_trainer import fit_network

MISSING = "missing values"


class Trainer(ABC):
    """Fits models of one kind."""

    @abstractmethod
    def fit(
        self,
        model: Model,
        train: Samples,
        validation: Samples | None,
        options: FitOptions = DEFAULT_OPTIONS,
    ) -> FitResult:
        """Fit `model` in place; parameters as in `DirectFitModel.fit`."""


class MLTrainer(Trainer):
    """Lets the model fit itself."""

    def fit(
        self,
        model: Model,
        train: Samples,
        validation: Samples | None,
        options: FitOptions = DEFAULT_OPTIONS,
    ) -> FitResult:
        """Fit `model`."""
        assert isinstance(model, DirectFitModel)
        refuse_missing(model, train, validation)
        return model.fit(train, validation, options)


class DLTrainer(Trainer):
    """Mini-batch gradient descent in preprocessed space."""

    def fit(
        self,
        model: Model,
        train: Samples,
        validation: Samples | None,
        options: FitOptions = DEFAULT_OPTIONS,
    ) -> FitResult:
        """Fit `model`; with validation data its weights are those of the best epoch."""
        assert isinstance(model, TorchModel)
        assert isinstance(train, WindowSamples)
        assert validation is None or isinstance(validation, WindowSamples)
        refuse_missing(model, train, validation)
        return fit_network(model, train, validation, options)


def trainer_for(model: Model) -> Trainer:
    """Return the trainer that fits `model`."""
    return DLTrainer() if isinstance(model, TorchModel) else MLTrainer()


def refuse_missing(model: Model, *samples: Samples | None) -> None:
    """Raise ValueError if a family that does not read missing values is given some; naive rules may read them."""
    if model.reads_missing or model.is_naive:
        return
    for part in samples:
        if part is None:
            continue
        if MISSING not in part.cache:
            columns = np.flatnonzero(np.isnan(part.values).any(axis=0))
            part.cache[MISSING] = ", ".join(part.channels[column] for column in columns)
        if part.cache[MISSING]:
            raise ValueError(
                f"{type(model).__name__} cannot read missing values, found in {part.cache[MISSING]}; add an impute "
                "step to the preprocessing, or use a family that reads them"
            )
