"""Requests as a batch answers them: those of one pair share reading, transform, predict and judgement.

What is shared must not be seen in an answer. Where one request of several is refused, all are looked at one by one, so
that each has the answer that it would have had alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlplatform.config import ENTITY, TIMESTAMP
from mlplatform.features.retrieval import FeaturePanel
from mlplatform.registry import Recall, complete
from serving.backend import Prediction
from serving.batching import Slice, stacked
from serving.bundle import Bundle
from serving.rows import panel_from_rows

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Question:
    """One request.

    Attributes:
        bundle: what answers it.
        panel: reads its rows; raises `ServingError`.
        rows: those that it brought itself, if it did.
        recall: knows the last good forecasts of the feature store's entities.
    """

    bundle: Bundle
    panel: Callable[[], FeaturePanel]
    rows: Rows | None = None
    recall: Recall | None = None


def answer_alone(question: Question) -> Prediction:
    """Return the answer of one question; raises what keeps it from having one."""
    return answer_panel(question.bundle, question.panel(), question.recall)


def answer_all(questions: Sequence[Question]) -> list[Prediction | Exception]:
    """Return the answer of every question, or what keeps it from having one."""
    answers: dict[int, Prediction | Exception] = {}
    groups: dict[int, list[int]] = {}
    for place, question in enumerate(questions):
        groups.setdefault(id(question.bundle), []).append(place)
    for places in groups.values():
        group = [questions[place] for place in places]
        answers.update(zip(places, _together(group) or map(_alone, group), strict=True))
    return [answers[place] for place in range(len(questions))]


def _alone(question: Question) -> Prediction | Exception:
    try:
        return answer_alone(question)
    except Exception as error:
        return error


def _together(group: Sequence[Question]) -> list[Prediction] | None:
    """Return the answers of questions to one bundle; `None` if one of them has none."""
    if len(group) == 1:
        return None
    bundle, is_one_table = group[0].bundle, _are_plain_tables(group)
    try:
        if is_one_table:
            panel, slices = _read_as_one_table(bundle, [question.rows or () for question in group])
        else:
            panel, slices = _side_by_side([question.panel() for question in group])
        whole = answer_panel(bundle, panel, group[0].recall)
    except Exception:
        # Whatever it is: alone, the one to blame says it and the others have their answers.
        return None
    parts = [whole.part(where) for where in slices]
    return [_renumbered(part) for part in parts] if is_one_table else parts


def answer_panel(bundle: Bundle, panel: FeaturePanel, recall: Recall | None = None) -> Prediction:
    """Return a bundle's answer for rows that were read.

    Parameters:
        recall: knows the last good forecasts.
    """
    contract, rules, answer = bundle.pair.contract, bundle.rules, bundle.forecaster.answer
    # Before the model is asked, because a refusal needs no forecast.
    judged = rules.judge(panel, contract, recall)
    completed = complete(panel, contract, rules.fallback, judged.replaced, answer, recall)
    return Prediction.of(bundle.pair, panel, completed, judged, rules)


def _are_plain_tables(group: Sequence[Question]) -> bool:
    """Return whether the questions are rows of tables without ids and times, which are nothing but their values."""
    bundle = group[0].bundle
    keys = {ENTITY, TIMESTAMP, bundle.rules.names.entity, bundle.rules.names.time} - {None}
    return bundle.pair.contract.task != "forecast" and all(
        question.rows is not None and not any(keys & row.keys() for row in question.rows) for question in group
    )


def _read_as_one_table(bundle: Bundle, tables: Sequence[Rows]) -> tuple[FeaturePanel, list[Slice]]:
    rows = [row for table in tables for row in table]
    panel = panel_from_rows(rows, bundle.pair.contract, bundle.forecaster.preprocessor.columns, bundle.rules)
    ends = np.cumsum([len(table) for table in tables]).tolist()
    return panel, [Slice(start, stop) for start, stop in zip([0, *ends[:-1]], ends, strict=True)]


def _side_by_side(panels: Sequence[FeaturePanel]) -> tuple[FeaturePanel, list[Slice]]:
    panel, slices = stacked(panels)
    return FeaturePanel(
        **vars(panel),
        event_times=np.concatenate([panel.event_times for panel in panels]),
        ages=np.concatenate([panel.ages for panel in panels]),
        is_stale=np.concatenate([panel.is_stale for panel in panels]),
    ), slices


def _renumbered(part: Prediction) -> Prediction:
    """Return the answers to rows without ids under the numbers that they have in their own request."""
    return replace(part, entity_ids=np.arange(len(part.entity_ids)))
