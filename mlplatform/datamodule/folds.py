"""Folds and the contract every cross-validation splitter keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from mlplatform.calendars import Calendar, ns_of
from mlplatform.config import ENTITY, ExperimentConfig, PluginConfig
from mlplatform.datamodule.identity import Digests
from mlplatform.datamodule.panel import Int64
from mlplatform.plugins import SPLITTERS, PluginUse

if TYPE_CHECKING:
    import pandas as pd


class SplitterParams(BaseModel):
    """Base of a splitter's parameters: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GroupParams(SplitterParams):
    """`column` names the dataset column whose values are the groups; by default every entity is one."""

    column: str | None = None


@dataclass(frozen=True)
class SampleIndex:
    """What a splitter may know about the samples: where and when they are, never their values.

    Attributes:
        samples: row of every sample (for forecasts: its origin), of shape (samples,).
        timestamps: time of every row, of shape (rows,).
        step: length of a time step, in the mean.
        horizon: output steps of a forecast, 0 for tabular data.
        labels: class of every row, of shape (rows,), or None.
        groups: group of every row, of shape (rows,), or None; a splitter by groups keeps each on one side of a fold.
        identities: digest of every row, of shape (rows,), which is what a fold depends on, and not on the row's number;
            equal digests are copies of a row. None where rows have no identity but their number.
        calendar: what counts the steps; None if all have the length `step`.
    """

    samples: Int64
    timestamps: npt.NDArray[np.datetime64]
    step: np.timedelta64
    horizon: int
    labels: npt.NDArray[np.generic] | None = None
    groups: npt.NDArray[np.generic] | None = None
    identities: Digests | None = None
    calendar: Calendar | None = None

    def ahead(self, times: npt.NDArray[np.datetime64], steps: int) -> npt.NDArray[np.datetime64]:
        """Return the times so many steps after times of the index; before them, if the number is negative."""
        return times + steps * self.step if self.calendar is None else self.calendar.ahead(times, steps)

    @property
    def span(self) -> int:
        """Steps from the first to the last time, both counted."""
        first, last = self.timestamps.min(keepdims=True), self.timestamps.max(keepdims=True)
        if self.calendar is None:
            return int(np.round((last - first) / self.step)[0]) + 1
        return int(self.calendar.steps(ns_of(first), ns_of(last))[0]) + 1


@dataclass(frozen=True)
class Fold:
    """Row numbers of one fold.

    Attributes:
        fit_rows: rows that preprocessing may be fitted on.
        train: samples to fit the model on.
        validation: samples to score it on.
    """

    fit_rows: Int64
    train: Int64
    validation: Int64

    def to_frame(self) -> pd.DataFrame:
        """Return the fold as a table with the columns `role` and `row`."""
        import pandas as pd

        parts = {"fit": self.fit_rows, "train": self.train, "validation": self.validation}
        roles = np.repeat(list(parts), [len(rows) for rows in parts.values()])
        return pd.DataFrame({"role": pd.Categorical(roles), "row": np.concatenate(list(parts.values()))})

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> Fold:
        """Rebuild a fold from its table."""
        roles, rows = frame["role"].astype(str).to_numpy(), frame["row"].to_numpy(dtype=np.int64)
        return cls(rows[roles == "fit"], rows[roles == "train"], rows[roles == "validation"])


@dataclass(frozen=True)
class StoredFold:
    """A fold together with the configuration it was cut for.

    Attributes:
        config_digest: digest of the configuration; indices mean nothing under another one.
    """

    fold: Fold
    config_digest: str

    def save(self, folder: Path) -> None:
        """Write indices as Parquet and the digest beside them."""
        self.fold.to_frame().to_parquet(folder / "rows.parquet", index=False)
        (folder / "config.sha256").write_text(self.config_digest)

    @classmethod
    def load(cls, folder: Path) -> StoredFold:
        """Read what `save` wrote."""
        import pandas as pd

        return cls(Fold.from_frame(pd.read_parquet(folder / "rows.parquet")), (folder / "config.sha256").read_text())


class Splitter(ABC):
    """A cross-validation scheme.

    Class attributes:
        tasks: what the scheme is sound for.
        separates: what keeps validation apart from training: `time` (validation is later), `groups` (no group is on
            both sides) or `rows` (no row is).
        Params: its parameters.
        min_folds: smallest number of folds the scheme can make.
    """

    tasks: ClassVar[frozenset[str]]
    separates: ClassVar[Literal["time", "groups", "rows"]]
    Params: ClassVar[type[SplitterParams]]
    min_folds: ClassVar[int] = 1

    def __init__(self, params: SplitterParams, folds: int, seed: int) -> None:
        self.params = params
        self.folds = folds
        self.seed = seed

    @classmethod
    def example_params(cls) -> dict[str, Any]:
        """Return parameters for the contract tests, which cut three folds of 100 time steps (horizon 4) or 60 rows."""
        return {}

    @classmethod
    def group_column(cls, params: Any) -> str | None:  # noqa: ARG003 (for subclasses)
        """Return the dataset column whose values are the groups of the rows; `None` if every entity is a group."""
        return None

    @classmethod
    def check(cls, use: PluginUse, params: Any, config: ExperimentConfig) -> Iterator[str]:  # noqa: ARG003 (for subclasses)
        """Yield what keeps the scheme from splitting an experiment's training rows.

        A scheme with further demands yields them after these.
        """
        if config.split.folds < cls.min_folds:
            yield f"split.folds {config.split.folds} is too few for {use.name!r}; allowed: at least {cls.min_folds}"
        if 0 < config.nested.outer_folds < cls.min_folds:
            yield (
                f"nested.outer_folds {config.nested.outer_folds} is too few for {use.name!r}; "
                f"allowed: 0 for none, or at least {cls.min_folds}"
            )

    def outer(self) -> Splitter:
        """Return the scheme of the outer folds of nested cross-validation whose inner folds this one cuts."""
        return self

    @abstractmethod
    def split(self, index: SampleIndex) -> tuple[Fold, ...]:
        """Return the folds.

        Raises:
            ValueError: if there are too few samples for the configured folds.
        """


def group_column(scheme: PluginConfig) -> str | None:
    """Return the column that a scheme by groups names; None for one by entities, and for schemes without groups."""
    plugin = SPLITTERS.get(scheme.name)
    column: str | None = plugin.group_column(plugin.Params.model_validate(scheme.params))
    return column


def row_groups(
    scheme: PluginConfig, frame: pd.DataFrame, entities: npt.NDArray[np.generic] | None = None
) -> npt.NDArray[np.generic]:
    """Return the group of every row, of shape (rows,): the column a scheme by groups names, else the entity.

    Parameters:
        entities: what stands for the entity of every row, of shape (rows,); default: the column `entity_id`.

    Raises:
        ValueError: if rows lack a group.
    """
    column = group_column(scheme)
    if column is None and entities is not None:
        return entities
    column = column or ENTITY
    if column not in frame:
        raise ValueError(f"the rows have no column {column!r}, which split.cv.params.column names")
    missing = int(frame[column].isna().sum())
    if missing:
        raise ValueError(
            f"{missing} of {len(frame)} rows have no {column!r}, so {scheme.name} cannot tell their group; fill the "
            "column in the source, or declare it nullable: false to quarantine such rows"
        )
    return frame[column].to_numpy()
