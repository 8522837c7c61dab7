"""Explanations of answers: asked for by `"explain": true`, bounded, and made on threads of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mlplatform.datamodule import Panel
from mlplatform.features.retrieval import FeaturePanel
from mlplatform.models import CannotExplainError
from mlplatform.registry import explain
from serving.backend import Explanations, Prediction
from serving.bundle import Bundle
from serving.errors import ServingError
from serving.questions import Question, answer_panel

# Of one request. Shares of a tree ensemble cost hundreds of times an answer, and there is one per feature and step.
MOST_ENTITIES, MOST_NUMBERS = 32, 200_000
DEADLINE_S = 5.0


def require_explainable(bundle: Bundle) -> None:
    """Refuse a request for explanations that the model does not have, before anything is read for it.

    Raises:
        ServingError: 422 that names the families that have them.
    """
    model = bundle.forecaster.model
    if model.explains is None:
        try:
            # Says which families have, whatever the samples.
            model.explain(None)
        except CannotExplainError as error:
            raise _cannot(bundle, error) from error


def answer_explained(question: Question) -> Prediction:
    """Return the answer of one question with its explanations; raises what keeps it from having one."""
    panel = question.panel()
    prediction = answer_panel(question, lambda: panel)
    return with_explanations(prediction, explanations(question.bundle, panel))


def with_explanations(prediction: Prediction, found: Explanations) -> Prediction:
    """Return a prediction with explanations, but for what stands in for the model's answers."""
    own = zip(found, prediction.is_fallback.tolist(), strict=True)
    return replace(prediction, explanations=tuple(None if is_fallback else each for each, is_fallback in own))


def explanations(bundle: Bundle, panel: FeaturePanel) -> Explanations:
    """Return an explanation for every entity of a panel.

    Raises:
        ServingError: 413 for more than is explained at once, 422 if the model has no exact explanation.
    """
    count = len(panel.entity_ids)
    if count > MOST_ENTITIES:
        raise _too_much(f"{count} entities or rows", f"at most {MOST_ENTITIES}")
    try:
        first = explain(bundle.forecaster, _first(panel))
        numbers = count * _numbers(first[0])
        if numbers > MOST_NUMBERS:
            raise _too_much(f"an answer with {numbers} contributions", f"at most {MOST_NUMBERS}")
        return first if count == 1 else explain(bundle.forecaster, panel)
    except CannotExplainError as error:
        raise _cannot(bundle, error) from error


def _first(panel: Panel) -> Panel:
    return panel.take(np.arange(panel.rows) < panel.offsets[1])


def _numbers(value: Any) -> int:
    """Return how many numbers a part of an explanation holds."""
    if isinstance(value, np.ndarray):
        return value.size
    return sum(map(_numbers, value.values())) if isinstance(value, dict) else 1


def _cannot(bundle: Bundle, error: CannotExplainError) -> ServingError:
    return ServingError(422, "cannot_explain", f"{bundle.pair.name} cannot explain its answers: {error}")


def _too_much(found: str, expected: str) -> ServingError:
    message = f"the request asks for {found} with explanations, but {expected} are explained at once; split it"
    return ServingError(413, "too_much_to_explain", message)
