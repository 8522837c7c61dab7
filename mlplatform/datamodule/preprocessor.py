"""What a data module asks of fitted preprocessing: the categories of a column, and answers back in original units."""

from __future__ import annotations

from typing import Protocol

from mlplatform.datamodule.panel import Float32


class Preprocessor(Protocol):
    """Fitted preprocessing, as `preprocessing.TransformManager` is; a protocol, because that stands on panels."""

    def classes(self, column: str) -> tuple[str, ...]:
        """Return the categories of a label-encoded column in code order."""

    @property
    def windowed(self) -> tuple[str, ...]:
        """The columns that come as they are, because models scale them window by window."""

    def invert(self, values: Float32, column: str) -> Float32:
        """Map preprocessed values of a column, of any shape, back to original units."""
