"""The thermal model of an oil-immersed power transformer after IEC 60076-7:2018, the loading guide.

Followed are the difference equations of clause 8.2.3 ("Difference equations solution"), with the thermal
characteristics that its Table 4 recommends for medium and large power transformers. In the standard's symbols, for a
load factor K, an ambient temperature theta_a and a time step Dt:

    D theta_o  = Dt / (k11 tau_o) * ( d_theta_or ((1 + R K^2) / (1 + R))^x - (theta_o - theta_a) )
    D theta_h1 = Dt / (k22 tau_w) * ( k21 d_theta_hr K^y - theta_h1 )
    D theta_h2 = Dt k22 / tau_o   * ( (k21 - 1) d_theta_hr K^y - theta_h2 )
    hot spot   = theta_o + theta_h1 - theta_h2

theta_o is the top-oil temperature. The standard asks for a time step of at most half the smallest time constant; here
it is one minute or less. Inputs are constant over a row's interval, so the sub-steps are applied as one power.

Beyond the standard: the fans of an ONAF transformer switch on and off by top-oil temperature. Without them the tank
sheds the losses of only `rating_pu` of the rated load at the same oil rise, so K is referred to that smaller rating.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

SUB_STEP_MINUTES = 1.0
FANS_START_C = 60.0
FANS_STOP_C = 50.0


@dataclass(frozen=True)
class CoolingStage:
    """Thermal characteristics of one cooling stage, named as in IEC 60076-7, clause 8.2.

    Attributes:
        oil_minutes: average oil time constant tau_o.
        winding_minutes: winding time constant tau_w.
        rating_pu: load at which the stage reaches the rated top-oil rise, as a share of the nameplate load.
        top_oil_rise_k: rated steady-state top-oil rise d_theta_or.
        gradient_k: hot-spot-to-top-oil gradient at rated current, d_theta_hr.
        loss_ratio: load losses at rated current over no-load losses, R.
        oil_exponent, winding_exponent: x and y.
        k11, k21, k22: constants of the thermal model.
    """

    oil_minutes: float
    winding_minutes: float
    rating_pu: float
    top_oil_rise_k: float = 52.0
    gradient_k: float = 26.0
    loss_ratio: float = 6.0
    oil_exponent: float = 0.8
    winding_exponent: float = 1.3
    k11: float = 0.5
    k21: float = 2.0
    k22: float = 2.0

    @property
    def time_constants(self) -> Float64:
        """Minutes, of shape (3,): top oil, and the two parts of the hot-spot gradient."""
        return np.array([self.k11 * self.oil_minutes, self.k22 * self.winding_minutes, self.oil_minutes / self.k22])

    def steady_top_oil_rise(self, load_pu: Float64) -> Float64:
        """Return the top-oil rise over ambient, in kelvin, that a constant load leads to; same shape as `load_pu`."""
        losses = (1.0 + self.loss_ratio * (load_pu / self.rating_pu) ** 2) / (1.0 + self.loss_ratio)
        return np.asarray(self.top_oil_rise_k * losses**self.oil_exponent)

    def steady_gradients(self, load_pu: Float64) -> tuple[Float64, Float64]:
        """Return the steady state of both parts of the hot-spot gradient, in kelvin."""
        gradient = self.gradient_k * load_pu**self.winding_exponent
        return self.k21 * gradient, (self.k21 - 1.0) * gradient

    def remaining(self, step_minutes: float) -> Float64:
        """Return, of shape (3,), the share of a deviation from the steady state that is left after a row's interval."""
        sub_steps = max(1, math.ceil(step_minutes / SUB_STEP_MINUTES))
        return np.asarray((1.0 - step_minutes / sub_steps / self.time_constants) ** sub_steps)


ONAN = CoolingStage(oil_minutes=210.0, winding_minutes=10.0, rating_pu=0.7)
ONAF = CoolingStage(oil_minutes=150.0, winding_minutes=7.0, rating_pu=1.0)


@dataclass(frozen=True)
class Temperatures:
    """Result of a simulation, each of shape (steps, transformers): degrees Celsius, and whether the fans ran."""

    top_oil_c: Float64
    hot_spot_c: Float64
    is_fans_on: Bool


def simulate_temperatures(
    load_pu: Float64, ambient_c: Float64, step_minutes: float, is_fans_usable: Bool, rise_factor: Float64
) -> Temperatures:
    """Simulate the temperatures at the end of every interval, from the steady state of the first row on.

    Parameters:
        load_pu: load factor K, constant over the interval, of shape (steps, transformers).
        ambient_c: of the same shape.
        step_minutes: length of an interval.
        is_fans_usable: where the fans start when the oil is hot enough, of the same shape.
        rise_factor: factor on the steady-state top-oil rise (fouled or broken coolers), of the same shape.
    """
    natural, forced = (_goals(stage, load_pu, ambient_c, rise_factor) for stage in (ONAN, ONAF))
    natural_left, forced_left = (stage.remaining(step_minutes)[:, None] for stage in (ONAN, ONAF))
    history = np.empty_like(natural)
    is_fans_on = np.zeros(load_pu.shape, dtype=bool)
    state, fans = natural[0], is_fans_on[0]
    for step in range(len(load_pu)):
        fans = is_fans_usable[step] & (state[0] > np.where(fans, FANS_STOP_C, FANS_START_C))
        goal = np.where(fans, forced[step], natural[step])
        state = goal + (state - goal) * np.where(fans, forced_left, natural_left)
        history[step], is_fans_on[step] = state, fans
    top_oil = history[:, 0]
    return Temperatures(top_oil, top_oil + history[:, 1] - history[:, 2], is_fans_on)


def _goals(stage: CoolingStage, load_pu: Float64, ambient_c: Float64, rise_factor: Float64) -> Float64:
    """Return the steady states the three equations strive for, of shape (steps, 3, transformers)."""
    top_oil = ambient_c + rise_factor * stage.steady_top_oil_rise(load_pu)
    return np.stack([top_oil, *stage.steady_gradients(load_pu)], axis=1)
