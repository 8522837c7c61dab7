"""Calls of the model that wait at the same time, as one predict.

As in `serving.questions`, what is shared must not be seen in an answer: only pairs whose answers have the same bits in
company as alone are batched, and where a batch fails each call is answered by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlplatform.datamodule import Samples, TabularSamples, WindowSamples
from mlplatform.registry import Answers
from serving.batching import answered_in_groups, slices_of
from serving.bundle import Bundle


@dataclass(frozen=True)
class SamplesOfBundle:
    """One call: samples, and whose model is to read them."""

    bundle: Bundle
    samples: Samples


def infer_all(calls: Sequence[SamplesOfBundle]) -> list[Answers | Exception]:
    """Return the model's answers to every call, or what keeps it from having any."""
    return answered_in_groups(
        calls,
        lambda call: id(call.bundle),
        _together,
        lambda call: call.bundle.forecaster.infer_answers(call.samples),
    )


def _together(group: Sequence[SamplesOfBundle]) -> list[Answers] | None:
    """Return the answers to calls of one model; `None` if one of them has none."""
    if len(group) == 1:
        return None
    try:
        whole = group[0].bundle.forecaster.infer_answers(stacked_samples([call.samples for call in group]))
    except Exception:
        # Whatever it is: alone, the one to blame says it and the others have their answers.
        return None
    return [where.of(whole) for where in slices_of([len(call.samples) for call in group])]


def stacked_samples(parts: Sequence[Samples]) -> Samples:
    """Return the samples of all parts, in order; they must be of one contract."""
    first = parts[0]
    values = np.concatenate([part.values for part in parts])
    if isinstance(first, TabularSamples):
        return replace(first, values=values, labels=np.empty(0, dtype=np.float32), cache={})
    windows = [part for part in parts if isinstance(part, WindowSamples)]
    rows = np.cumsum([0, *(len(part.values) for part in windows[:-1])])
    return replace(
        first,
        values=values,
        timestamps=np.concatenate([part.timestamps for part in windows]),
        origins=np.concatenate([part.origins + before for part, before in zip(windows, rows, strict=True)]),
        cache={},
    )
