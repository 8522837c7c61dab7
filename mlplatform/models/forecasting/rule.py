"""Forecast rules: what the naive families share. They have nothing to learn and nothing to store."""

from __future__ import annotations

from pathlib import Path

from typing_extensions import override

from mlplatform.datamodule import Samples
from mlplatform.models.base import DEFAULT_OPTIONS, DirectFitModel, FitOptions, FitResult


class RuleModel(DirectFitModel):
    """A forecast rule without fitted state."""

    tasks = frozenset({"forecast"})
    is_naive = True

    @override
    def fit(
        self,
        train: Samples,
        validation: Samples | None,
        options: FitOptions = DEFAULT_OPTIONS,
    ) -> FitResult:
        """A rule learns nothing."""
        return FitResult()

    def save(self, folder: Path) -> None:
        """A rule has no state."""

    def restore(self, folder: Path) -> None:
        """A rule has no state."""
