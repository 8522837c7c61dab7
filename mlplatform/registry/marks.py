"""What is unusual in the rows behind an answer, as far as pair and dataset can tell: the same for every route.

The rules are those of ingestion and training: limits are the dataset's, and known categories are those that
preprocessing was fitted on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import DatasetConfig
from mlplatform.datamodule import Panel
from mlplatform.registry.forecaster import Contract, Forecaster

Kind = Literal["missing", "out_of_range", "unseen_category", "unreadable"]
Limits = tuple[float, float]


@dataclass(frozen=True)
class Mark:
    """Something unusual in the rows behind an answer.

    Attributes:
        kind: `unreadable` is a number that the pair's preprocessing has none for, such as a logarithm's at or below
            -shift, and that nothing fills.
        rows: of the entity's rows that the answer was made from, those concerned.
    """

    kind: Kind
    column: str
    rows: int


@dataclass(frozen=True)
class InputRules:
    """What the columns of a pair's rows may hold; by default no nulls, and anything else.

    Attributes:
        nullable: columns in which a null is read.
        limits: least and greatest value of the columns that have one; infinite where there is none.
        categories: known categories of the categorical columns.
        floors: of columns whose numbers have to lie above one, because the pair's preprocessing has none for the others
            and its model does not read that.
    """

    nullable: frozenset[str] = frozenset()
    limits: Mapping[str, Limits] = field(default_factory=dict)
    categories: Mapping[str, frozenset[str]] = field(default_factory=dict)
    floors: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of_pair_alone(cls, forecaster: Forecaster) -> InputRules:
        """Return what the pair itself cannot read, where no dataset is at hand."""
        return InputRules(floors=_floors(forecaster))

    @classmethod
    def of_pair(cls, forecaster: Forecaster, dataset: DatasetConfig) -> InputRules:
        """Return the rules of a pair and its dataset."""
        columns = {name: dataset.columns[name] for name in forecaster.contract.columns if name in dataset.columns}
        categories = {}
        filled = set(columns) if forecaster.model.reads_missing else set(forecaster.preprocessor.windowed)
        for name, _, transform in forecaster.preprocessor.fitted_:
            if hasattr(transform, "classes_"):
                # A code of its own stands for what is missing or unknown.
                categories[name] = frozenset(transform.classes_)
                filled.add(name)
            if transform.fills_missing:
                filled.add(name)
        limits = {
            name: (-np.inf if column.min is None else column.min, np.inf if column.max is None else column.max)
            for name, column in columns.items()
            if column.min is not None or column.max is not None
        }
        return InputRules(
            nullable=frozenset(name for name in filled & set(columns) if columns[name].nullable),
            limits=limits,
            categories={name: categories[name] for name in columns if name in categories},
            floors={name: floor for name, floor in _floors(forecaster).items() if name in columns},
        )

    def marks(self, panel: Panel, contract: Contract) -> tuple[tuple[Mark, ...], ...]:
        """Return what is unusual in the rows behind every answer, of shape (entities,)."""
        found: list[list[Mark]] = [[] for _ in panel.entity_ids]
        past, must_be_there = _is_past(panel, contract), None
        for name in contract.columns:
            values = panel.columns[name]
            counted = np.ones(panel.rows, bool) if name in contract.known else past
            for kind, is_unusual in self._unusual(name, values):
                if kind == "missing":
                    if must_be_there is None:
                        must_be_there = _must_be_there(panel, contract)
                    is_unusual = is_unusual & must_be_there
                counts = np.add.reduceat((is_unusual & counted).astype(np.int64), panel.offsets[:-1])
                for entity in np.flatnonzero(counts):
                    found[entity].append(Mark(kind, name, int(counts[entity])))
        return tuple(map(tuple, found))

    def _unusual(self, name: str, values: npt.NDArray[np.generic]) -> Iterator[tuple[Kind, npt.NDArray[np.bool_]]]:
        """Yield what is unusual in a column, with a mask of the rows concerned where there are any."""
        is_missing = pd.isna(values)
        if is_missing.any():
            yield "missing", is_missing
        if name in self.limits:
            low, high = self.limits[name]
            numbers = values.astype(np.float32)
            is_beyond = (numbers < np.float32(low)) | (numbers > np.float32(high))
            if is_beyond.any():
                yield "out_of_range", is_beyond
        if name in self.floors:
            is_unreadable = values.astype(np.float32) <= np.float32(self.floors[name])
            if is_unreadable.any():
                yield "unreadable", is_unreadable
        if name in self.categories:
            unseen = set(values[~is_missing].tolist()) - self.categories[name]
            if unseen:
                yield "unseen_category", np.array([value in unseen for value in values.tolist()], dtype=bool)


def _must_be_there(panel: Panel, contract: Contract) -> npt.NDArray[np.bool_]:
    """Return which rows are none of a history that a series need not have, of shape (rows,)."""
    firsts = panel.offsets[1:] - contract.future_rows - contract.least_rows
    must: npt.NDArray[np.bool_] = np.arange(panel.rows) >= np.repeat(firsts, np.diff(panel.offsets))
    return must


def unreadable_columns(marks: Sequence[Mark]) -> tuple[str, ...]:
    """Return the columns of an entity's rows with a number that the pair cannot read."""
    return tuple(mark.column for mark in marks if mark.kind == "unreadable")


def why_broken(marks: Sequence[Mark]) -> str:
    """Return why a model's answer for an entity is no number, as far as its rows tell."""
    columns = unreadable_columns(marks)
    if columns:
        return f"the pair's preprocessing has no number for a value of {', '.join(columns)}, and nothing fills it"
    return "the model answered NaN or infinity; check the entity's latest rows"


def _floors(forecaster: Forecaster) -> dict[str, float]:
    """Return the floors of columns as they are given: behind a step that changes values a floor is none of theirs."""
    floors: dict[str, float] = {}
    changed = set(forecaster.contract.columns if forecaster.model.reads_missing else forecaster.preprocessor.windowed)
    for name, _, transform in forecaster.preprocessor.fitted_:
        if name not in changed and np.isfinite(transform.floor):
            floors[name] = transform.floor
        if transform.fills_missing:
            # What has no number has one from here on, like a gap.
            floors.pop(name, None)
        else:
            changed.add(name)
    return floors


def _is_past(panel: Panel, contract: Contract) -> npt.NDArray[np.bool_]:
    """Return which rows are of the past; the others hold the known columns alone."""
    ahead = panel.offsets[1:].repeat(np.diff(panel.offsets)) - np.arange(panel.rows)
    is_past: npt.NDArray[np.bool_] = ahead > contract.future_rows
    return is_past
