"""Requests as a batch answers them: those of one pair share reading, transform, predict and judgement.

What is shared must not be seen in an answer. Where one request of several is refused, all are looked at one by one, so
that each has the answer that it would have had alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlplatform.datamodule import Panel, Samples
from mlplatform.features.retrieval import FeaturePanel
from mlplatform.registry import Answers, FallbackPolicy, Forecaster, Recall, complete
from serving.backend import Prediction
from serving.batching import Slice, answered_in_groups, slices_of, stacked
from serving.bundle import Bundle
from serving.rows import is_shareable, panels_from_rows
from serving.timing import StageTimes

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Question:
    """One request.

    Attributes:
        bundle: what answers it.
        panel: reads its rows; raises `ServingError`.
        rows: those that it brought itself, if it did.
        times: takes down how long its stages took.
        recall: knows the last good forecasts of the feature store's entities.
    """

    bundle: Bundle
    panel: Callable[[], FeaturePanel]
    rows: Rows | None = None
    times: StageTimes = field(default_factory=StageTimes)
    recall: Recall | None = None

    def note_wait(self, seconds: float) -> None:
        """Take down how long it has waited for the model."""
        self.times.observe("queue", self.bundle.pair.version, seconds)


def answer_alone(question: Question) -> Prediction:
    """Return the answer of one question; raises what keeps it from having one."""
    return answer_panel(question, question.panel)


def answer_late(question: Question, asked: float) -> Prediction:
    """Return the answer of a question that waited for a thread since `asked`, of `time.perf_counter`."""
    question.note_wait(time.perf_counter() - asked)
    return answer_alone(question)


def answer_all(questions: Sequence[Question]) -> list[Prediction | Exception]:
    """Return the answer of every question, or what keeps it from having one."""
    # The last forecasts stand in for answers from the feature store alone.
    return answered_in_groups(
        questions, lambda question: (id(question.bundle), question.recall is None), _together, answer_alone
    )


def _together(group: Sequence[Question]) -> list[Prediction] | None:
    """Return the answers of questions to one bundle; `None` if one of them has none."""
    group[0].times.observe_batch(group[0].bundle.pair.version, len(group))
    if len(group) == 1:
        return None
    bundle, slices = group[0].bundle, list[Slice]()
    contract, rules = bundle.pair.contract, bundle.rules
    rows = [question.rows for question in group if question.rows is not None]
    is_shared = len(rows) == len(group) and is_shareable(rows, contract, rules)

    def read() -> FeaturePanel:
        if is_shared:
            panel, counts = panels_from_rows(rows, contract, bundle.forecaster.preprocessor.columns, rules)
            slices.extend(slices_of(counts))
        else:
            panel, found = _side_by_side([question.panel() for question in group])
            slices.extend(found)
        return panel

    try:
        whole = answer_panel(group[0], read)
    except Exception:
        # Whatever it is: alone, the one to blame says it and the others have their answers.
        return None
    # Rows of a table have no ids: each has the number that it has in its own request.
    is_numbered = is_shared and contract.task != "forecast"
    return [whole.part(where, is_numbered=is_numbered) for where in slices]


def answer_panel(question: Question, read: Callable[[], FeaturePanel]) -> Prediction:
    """Return what the bundle of a question answers to a panel, and take down how long that takes."""
    bundle, version = question.bundle, question.bundle.pair.version
    forecaster, rules, timed = bundle.forecaster, bundle.rules, question.times.timed
    contract = bundle.pair.contract
    with timed("preprocess", version):
        panel = read()
        # Before the model is asked, because a refusal needs no forecast.
        judged = rules.judge(panel, contract, question.recall)
        prepared = prepare(forecaster, panel, rules.fallback)

    def answer(some: Panel) -> Answers:
        samples = prepared if some is panel and prepared is not None else forecaster.preprocess(some)
        with timed("predict", version):
            outputs = forecaster.infer_answers(samples).scaled(forecaster.interval_scales)
        with timed("postprocess", version):
            return forecaster.postprocess_answers(outputs)

    completed = complete(panel, contract, rules.fallback, judged.replaced, answer, question.recall)
    return Prediction.of(bundle.pair, panel, completed, judged, rules)


def prepare(forecaster: Forecaster, panel: Panel, policy: FallbackPolicy) -> Samples | None:
    """Return the samples of a panel; `None` if they cannot be made, and something may stand in for their answers."""
    try:
        return forecaster.preprocess(panel)
    except Exception:
        if policy.kind == "none":
            raise
        return None


def _side_by_side(panels: Sequence[FeaturePanel]) -> tuple[FeaturePanel, list[Slice]]:
    panel, slices = stacked(panels)
    return FeaturePanel(
        **vars(panel),
        event_times=np.concatenate([panel.event_times for panel in panels]),
        ages=np.concatenate([panel.ages for panel in panels]),
        is_stale=np.concatenate([panel.is_stale for panel in panels]),
    ), slices
