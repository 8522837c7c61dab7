"""Columns under other names than the source has for them (`source.rename`), alike for every source.

A source is asked in its own names and answers in them; only this module knows that the dataset has others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mlplatform.config import DatasetConfig
from mlplatform.data.sources.base import Batch, IncrementalSource, Position, Source
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd


def renaming(source: Source[Any], dataset: DatasetConfig) -> Source[Any]:
    """Return a source that delivers the dataset's names: itself, where the dataset renames nothing."""
    if not dataset.source.rename:
        return source
    return _RenamedIncremental(source) if isinstance(source, IncrementalSource) else _Renamed(source)


class _Renamed(Source[Any]):
    def __init__(self, inner: Source[Any]) -> None:
        super().__init__(inner.params)
        self.inner = inner

    def read(self, dataset: DatasetConfig, settings: Settings) -> pd.DataFrame:
        return _in_our_names(self.inner.read(_in_their_names(dataset), settings), dataset)

    def read_batches(self, dataset: DatasetConfig, settings: Settings) -> Iterator[pd.DataFrame]:
        for frame in self.inner.read_batches(_in_their_names(dataset), settings):
            yield _in_our_names(frame, dataset)

    def fingerprint(self, dataset: DatasetConfig, settings: Settings) -> str | None:
        return self.inner.fingerprint(_in_their_names(dataset), settings)


class _RenamedIncremental(IncrementalSource[Any]):
    def __init__(self, inner: IncrementalSource[Any]) -> None:
        super().__init__(inner.params)
        self.inner = inner

    @property
    def is_stream(self) -> bool:  # type: ignore[override] # of the source it stands for
        return self.inner.is_stream

    def is_incremental(self, dataset: DatasetConfig, settings: Settings) -> bool:
        return self.inner.is_incremental(_in_their_names(dataset), settings)

    def read_batches(self, dataset: DatasetConfig, settings: Settings) -> Iterator[pd.DataFrame]:
        for frame in self.inner.read_batches(_in_their_names(dataset), settings):
            yield _in_our_names(frame, dataset)

    def read_since(self, dataset: DatasetConfig, settings: Settings, position: Position | None) -> Iterator[Batch]:
        for batch in self.inner.read_since(_in_their_names(dataset), settings, position):
            yield Batch(_in_our_names(batch.frame, dataset), batch.position)

    def acknowledge(self, dataset: DatasetConfig, settings: Settings, position: Position) -> None:
        self.inner.acknowledge(_in_their_names(dataset), settings, position)

    def fingerprint(self, dataset: DatasetConfig, settings: Settings) -> str | None:
        return self.inner.fingerprint(_in_their_names(dataset), settings)


def _in_their_names(dataset: DatasetConfig) -> DatasetConfig:
    """Return the dataset as it would be with the source's names, which may be ones that no dataset can have."""
    theirs = {ours: theirs for theirs, ours in dataset.source.rename.items()}

    def named(name: str | None) -> str | None:
        return name if name is None else theirs.get(name, name)

    return dataset.model_copy(
        update={
            "time_column": named(dataset.time_column),
            "entity_column": named(dataset.entity_column),
            "removed_column": named(dataset.removed_column),
            "columns": {theirs.get(name, name): column for name, column in dataset.columns.items()},
        }
    )


def _in_our_names(frame: pd.DataFrame, dataset: DatasetConfig) -> pd.DataFrame:
    """Return a frame with the dataset's names, without columns that are not read and have the name of one that is."""
    rename = dataset.source.rename
    hidden = [name for name in rename.values() if name in frame.columns and name not in rename]
    return frame.drop(columns=hidden).rename(columns=rename)
