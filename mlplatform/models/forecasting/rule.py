"""Forecast rules: what the naive families share. They have nothing to learn and nothing to store."""

from __future__ import annotations

from pathlib import Path

from typing_extensions import override

from mlplatform.datamodule import WindowSamples
from mlplatform.models.base import DirectFitModel, FitOptions, FitResult


class RuleModel(DirectFitModel[WindowSamples]):
    """A forecast rule without fitted state."""

    tasks = frozenset({"forecast"})
    is_naive = True

    @override
    def _fit(self, train: WindowSamples, validation: WindowSamples | None, options: FitOptions) -> FitResult:
        """A rule learns nothing."""
        return FitResult()

    def save(self, folder: Path) -> None:
        """A rule has no state."""

    def restore(self, folder: Path) -> None:
        """A rule has no state."""
