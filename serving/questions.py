"""Requests as a batch answers them: each reads its rows, and those of one pair share a transform and a predict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlplatform.features.retrieval import FeaturePanel
from serving.backend import Prediction
from serving.batching import stacked
from serving.bundle import Bundle


@dataclass(frozen=True)
class Question:
    """One request.

    Attributes:
        bundle: what answers it.
        panel: reads its rows; raises `ServingError`.
    """

    bundle: Bundle
    panel: Callable[[], FeaturePanel]


@dataclass(frozen=True)
class _Ready:
    """A question whose rows are read.

    Attributes:
        place: of the question in its batch.
        falls_back: which forecasts the last measured value replaces.
    """

    place: int
    bundle: Bundle
    panel: FeaturePanel
    falls_back: npt.NDArray[np.bool_]


def answer_alone(question: Question) -> Prediction:
    """Return the answer of one question; raises what keeps it from having one."""
    (answer,) = answer_all([question])
    if isinstance(answer, Exception):
        raise answer
    return answer


def answer_all(questions: Sequence[Question]) -> list[Prediction | Exception]:
    """Return the answer of every question, or what keeps it from having one."""
    answers: dict[int, Prediction | Exception] = {}
    groups: dict[int, list[_Ready]] = {}
    for place, question in enumerate(questions):
        try:
            ready = _read(place, question)
        except Exception as error:
            answers[place] = error
        else:
            groups.setdefault(id(question.bundle.forecaster), []).append(ready)
    for group in groups.values():
        answers.update(_answered(group))
    return [answers[place] for place in range(len(questions))]


def _read(place: int, question: Question) -> _Ready:
    panel = question.panel()
    # Before the model is asked, because a refusal needs no forecast.
    falls_back = question.bundle.rules.fallbacks(panel, question.bundle.pair.contract)
    return _Ready(place, question.bundle, panel, falls_back)


def _answered(group: Sequence[_Ready]) -> dict[int, Prediction | Exception]:
    """Return the answers of questions to one pair by their place in the batch."""
    try:
        panel, slices = stacked([ready.panel for ready in group])
        answers = group[0].bundle.forecaster.answer(panel)
        return {
            ready.place: Prediction.of(
                ready.bundle.pair, ready.panel, part.of(answers), ready.bundle.rules, ready.falls_back
            )
            for ready, part in zip(group, slices, strict=True)
        }
    except Exception as error:
        if len(group) == 1:
            return {group[0].place: error}
    # One of them is to blame: alone, the others have their answers.
    return {place: answer for ready in group for place, answer in _answered([ready]).items()}
