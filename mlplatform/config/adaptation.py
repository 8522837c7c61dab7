"""How prediction intervals follow a world that becomes more or less restless after the training."""

from __future__ import annotations

from pydantic import Field

from mlplatform.config.base import Frozen


class AdaptationConfig(Frozen):
    """Adaptive conformal inference (Gibbs & Candès, NeurIPS 2021), fed by the table of forecast errors.

    Attributes:
        step_size: gamma of the method: by how much the aimed share of misses moves with each moment that came true;
            `null`, the default, leaves the intervals as they were calibrated. 0.005 to 0.05 is usual: larger ones
            follow sooner and make the widths less steady.
        window: newest moments, per step of the horizon, whose misses say how wide an interval must be.
    """

    step_size: float | None = Field(default=None, gt=0, lt=1)
    window: int = Field(default=168, ge=20, le=5000)
