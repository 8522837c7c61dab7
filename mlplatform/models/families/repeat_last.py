"""The last observed value as the forecast: the floor that any model worth promoting must beat."""

from __future__ import annotations

import numpy as np

from mlplatform.datamodule import Float32, WindowSamples
from mlplatform.models.base import ModelParams
from mlplatform.models.forecasting import RuleModel
from mlplatform.plugins import MODELS


@MODELS.register("repeat_last")
class RepeatLast(RuleModel):
    """Every future step equals the last observed one."""

    Params = ModelParams
    is_exact = True

    def predict(self, samples: WindowSamples) -> Float32:
        """Return the last value of each target, repeated over the horizon."""
        last = samples.values[samples.origins][:, list(self.spec.targets)]
        return self.filled(np.repeat(last[:, None, :], self.spec.horizon, axis=1), samples)
