"""A split policy: train, reference and test rows, and the folds inside the training rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from mlplatform.config.base import NAME_PATTERN, Frozen, Name, PluginConfig, Task, UtcDatetime
from mlplatform.config.dataset import DatasetConfig


class SplitConfig(Frozen):
    """A split policy and the cross-validation inside its training rows.

    Time series, in steps of the dataset's frequency: `[train][reference][test ...]`, laid from the start when
    `train_steps` is given and from the end of the data otherwise. Tabular data: about `reference_fraction` of the rows,
    chosen by what a row is and `seed`; `stratify_column` asks for rows of each of its values on both sides.

    A reference or test part is written once, and only if a target was observed in at least `min_observed_share` of its
    rows.

    `as_of` cuts the data at a moment; it is part of the version, so `fleet_v1@20250301T0000` is a new immutable
    reference set made by the policy `fleet_v1`.

    `membership` says what a row's fold depends on: `identity`, so on the row, or `position`, its number among the rows.
    The latter is how earlier versions of this package cut folds; only their training runs are repeated with it.
    """

    version: str = Field(pattern=NAME_PATTERN)
    as_of: UtcDatetime | None = None
    train_steps: int | None = Field(default=None, ge=1)
    reference_steps: int | None = Field(default=None, ge=1)
    test_steps: dict[Name, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    context_steps: int = Field(default=0, ge=0)
    reference_fraction: float | None = Field(default=None, gt=0, lt=1)
    stratify_column: str | None = None
    seed: int = 0
    min_observed_share: float = Field(default=0.5, ge=0, le=1)
    membership: Literal["identity", "position"] = "identity"
    cv: PluginConfig
    folds: int = Field(ge=1, le=50)

    @property
    def version_id(self) -> str:
        """The version with its cut-off, as used for folder names, tags and `active_config.yaml`."""
        return self.version if self.as_of is None else f"{self.version}@{self.as_of:%Y%m%dT%H%M}"

    @property
    def fold_names(self) -> tuple[str, ...]:
        """Partition keys of the folds."""
        return tuple(f"fold_{k}" for k in range(self.folds))


def forecast_split_mistakes(split: SplitConfig, reach: str, needed: int, context: int, horizon: int) -> Iterator[str]:
    """Yield what keeps a forecast from being made on a split.

    Parameters:
        reach: what a forecast looks back at, in words.
        needed: steps that it reads, those of preprocessing included.
        context: steps before its past that preprocessing reads.
    """
    if split.reference_steps is None:
        yield "split.reference_steps is missing; task 'forecast' needs it"
    if needed > split.context_steps:
        yield (
            f"{reach} and {context} steps of preprocessing context exceed "
            f"split.context_steps {split.context_steps} of split version {split.version!r}"
        )
    for key, steps in (
        ("split.reference_steps", split.reference_steps),
        *((f"split.test_steps.{name}", steps) for name, steps in split.test_steps.items()),
    ):
        if steps is not None and horizon > steps:
            yield f"horizon {horizon} is longer than {key} {steps}; allowed: 1 to {steps}"


def tabular_split_mistakes(split: SplitConfig, task: Task, dataset: DatasetConfig) -> Iterator[str]:
    """Yield what keeps a table from being split."""
    stratify = split.stratify_column
    if stratify is not None and stratify not in dataset.columns:
        yield (
            f"split.stratify_column names {stratify!r}, which is not a column of dataset {dataset.name!r}; "
            f"allowed: {', '.join(dataset.columns)}"
        )
    if split.reference_fraction is None:
        yield f"split.reference_fraction is missing; task {task!r} needs it"
