"""The trainers: how a model of either kind is fitted.

Models that fit themselves (boosted trees, closed forms, naive rules) go through `MLTrainer`; neural networks through
`DLTrainer`, whose loop is in `dl_trainer`. A model of differences has the trainer of its family.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from mlplatform.datamodule import Samples, WindowSamples
from mlplatform.models import DEFAULT_OPTIONS, Differenced, DirectFitModel, FitOptions, FitResult, Model, teaching
from mlplatform.models.networks import TorchModel
from mlplatform.training.dl_trainer import fit_network


class Trainer:
    """Fits models of one kind."""

    _fit: ClassVar[Callable[..., FitResult]]

    def fit(
        self, model: Model, train: Samples, validation: Samples | None, options: FitOptions = DEFAULT_OPTIONS
    ) -> FitResult:
        """Fit `model` in place; parameters and errors as in `DirectFitModel.fit`.

        Samples that no window scales are left out (see `window_scale.teaching`).
        """
        return self._fit(model, _teaching(train, model), _teaching(validation, model), options)


def _teaching(samples: Samples | None, model: Model) -> Samples | None:
    return teaching(samples, model.spec) if isinstance(samples, WindowSamples) else samples


class MLTrainer(Trainer):
    """Lets the model fit itself."""

    _fit = staticmethod(DirectFitModel.fit)


class DLTrainer(Trainer):
    """Mini-batch gradient descent in preprocessed space; with validation data the weights are the best epoch's."""

    _fit = staticmethod(fit_network)


def _fit_differenced(
    model: Differenced, train: WindowSamples, validation: WindowSamples | None, options: FitOptions
) -> FitResult:
    """Fit the model of differences to the differences."""
    held_out = None if validation is None else validation.differenced(model.period)
    return trainer_for(model.inner).fit(model.inner, train.differenced(model.period), held_out, options)


class DifferenceTrainer(Trainer):
    """Lets the trainer of the family fit it to differences."""

    _fit = staticmethod(_fit_differenced)


def trainer_for(model: Model) -> Trainer:
    """Return the trainer that fits `model`."""
    if isinstance(model, Differenced):
        return DifferenceTrainer()
    return DLTrainer() if isinstance(model, TorchModel) else MLTrainer()
