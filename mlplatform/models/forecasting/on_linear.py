"""A family that learns what a linear model leaves: trends and levels are extrapolated, which trees cannot.

The linear model is `ridge`, fitted to the same windows first; its forecast takes the place of the last observed value
as what the answers are changes from (a hybrid of Zhang, Time series forecasting using a hybrid ARIMA and neural network
model, 2003). Early stopping on the held-out samples then decides how much is left to learn: on short series that is
little, and the answer is nearly ridge's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from typing_extensions import override

from mlplatform.datamodule import Float32, Samples, WindowSamples
from mlplatform.models.base import DirectFitModel, FitOptions, FitResult, Model, ModelParams, Wrapped
from mlplatform.models.explanation import Explanation
from mlplatform.plugins import MODELS

LINEAR_FAMILY = "ridge"
LINEAR, REST = "linear", "rest"


class OnLinear(Wrapped, DirectFitModel[WindowSamples]):
    """A model of another family on top of a linear one.

    Attributes:
        linear: what is fitted first, and answers alone if nothing is left.
        inner: the model of what is left, whose samples have the linear forecast as their base.
    """

    tasks = frozenset({"forecast"})
    Params = ModelParams
    inner: DirectFitModel[WindowSamples]

    def __init__(self, inner: DirectFitModel[WindowSamples]) -> None:
        super().__init__(inner.params, inner.spec)
        family: Any = MODELS.get(LINEAR_FAMILY)
        self.inner = inner
        self._family, self._spec = family, replace(inner.spec, quantiles=())
        self.linear: DirectFitModel[WindowSamples] = family(family.Params(), self._spec)

    @override
    def unreadable(self, samples: Samples) -> tuple[str, ...]:
        """Return the columns with missing values that one of the two does not read."""
        return tuple(dict.fromkeys((*self.linear.unreadable(samples), *self.inner.unreadable(samples))))

    def _fit(self, train: WindowSamples, validation: WindowSamples | None, options: FitOptions) -> FitResult:
        """Fit the linear model, and then the other to what it leaves.

        With validation samples they choose the linear model's penalty, so that one that has too few windows to learn
        from leaves everything to the other; the choice is the first of the iterations. Otherwise it is ridge's usual.
        """
        if validation is not None or options.iterations:
            self.linear = self._family(self._family.Params(alpha=None), self._spec)
        chosen = self.linear.fit(train, validation, replace(options, iterations=options.iterations[:1]))
        held_out = None if validation is None else self.inner_samples(validation)
        found = self.inner.fit(self.inner_samples(train), held_out, replace(options, iterations=options.iterations[1:]))
        return replace(found, iterations=(*chosen.iterations, *found.iterations))

    def inner_samples(self, samples: WindowSamples) -> WindowSamples:
        """Return the samples with the linear forecast as what changes count from."""
        # What is made of the windows alone is kept beside the samples that came.
        return replace(samples, base=self.linear.predict(samples), cache=samples.cache)

    def predict(self, samples: WindowSamples) -> Float32:
        """Return the forecast."""
        forecast: Float32 = self.inner.predict(self.inner_samples(samples))
        return forecast

    @override
    def predict_quantiles(self, samples: WindowSamples) -> Float32:
        """Return the forecast's quantiles."""
        quantiles: Float32 = self.inner.predict_quantiles(self.inner_samples(samples))
        return quantiles

    @override
    def explain(self, samples: WindowSamples) -> Explanation:
        """Return why the forecast is off the linear one, which is in the base."""
        return self.inner.explain(self.inner_samples(samples))

    def save(self, folder: Path) -> None:
        """Write both models."""
        for name, model in self._parts():
            (folder / name).mkdir()
            model.save(folder / name)

    def restore(self, folder: Path) -> None:
        """Read both models."""
        for name, model in self._parts():
            model.restore(folder / name)

    def _parts(self) -> tuple[tuple[str, Model], ...]:
        return (LINEAR, self.linear), (REST, self.inner)


def on_linear(inner: DirectFitModel[WindowSamples]) -> OnLinear:
    """Return an unfitted model of what a linear one leaves, which can do what the family of `inner` can."""
    family = type(inner)
    able = {name: getattr(family, name) for name in ("reads_missing", "explains", "has_quantiles", "covariates")}
    kind: type[OnLinear] = type(f"{family.__name__}OnLinear", (OnLinear,), able)
    return kind(inner)
