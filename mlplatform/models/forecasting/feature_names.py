"""What the columns of lag features are, in the order in which `lag_features` fills them."""

from __future__ import annotations

from mlplatform.config import TIMESTAMP
from mlplatform.datamodule import ModelSpec
from mlplatform.models.explanation import Feature
from mlplatform.models.forecasting.calendar_inputs import calendar_names, event_names, event_steps
from mlplatform.models.forecasting.lag_features import LagFeatureParams, feature_plan


def origin_feature_names(spec: ModelSpec, params: LagFeatureParams, with_known: bool) -> tuple[Feature, ...]:
    """Return what the columns of `origin_features` are."""
    found: list[Feature] = []
    for channel, lags, means in feature_plan(spec, params):
        name = spec.channels[channel]
        found += [Feature(name, "change" if lag else "level", lag=lag) for lag in lags]
        found += [Feature(name, "mean", length=length) for length in means]
    if params.calendar:
        found += _calendar(spec)
    if params.calendar and with_known:
        steps, events = event_steps(spec), event_names(spec)
        found += [Feature(TIMESTAMP, "calendar", step=step, part=name) for step in steps for name in events]
    if with_known:
        ahead = range(1, spec.horizon + 1)
        found += [Feature(spec.channels[channel], "known", step=step) for step in ahead for channel in spec.known]
    return tuple(found)


def step_feature_names(spec: ModelSpec, params: LagFeatureParams) -> tuple[Feature, ...]:
    """Return what the columns of `step_features` are; they are those of the step that is forecast."""
    known = [Feature(spec.channels[channel], "known") for channel in spec.known]
    return (Feature(TIMESTAMP, "step"), *known, *(_calendar(spec) if params.calendar else ()))


def _calendar(spec: ModelSpec) -> tuple[Feature, ...]:
    return tuple(Feature(TIMESTAMP, "calendar", part=name) for name in calendar_names(spec))
