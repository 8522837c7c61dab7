"""The contract of a data source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from mlplatform.config import DatasetConfig, Frozen
from mlplatform.data.columns import source_columns
from mlplatform.settings import Settings

if TYPE_CHECKING:
    # Configuration is checked against the sources' options without loading pandas.
    import pandas as pd

P = TypeVar("P", bound=Frozen)

# Where an incremental source goes on: plain JSON, kept beside the rows that were read up to it.
Position = dict[str, Any]


class NoOptions(Frozen):
    """The options of a source that has none."""


@dataclass(frozen=True)
class Batch:
    """Rows of an incremental source.

    Attributes:
        frame: in the source's own column names and row order.
        position: where to go on once these rows are stored.
    """

    frame: pd.DataFrame
    position: Position


class Source(ABC, Generic[P]):
    """A place that data is read from.

    Class attributes:
        Params: validates `source.options` of the dataset.
        operational: options that say how to read and not what; changing one leaves what was stored valid.
        takes_lists: whether `source.uri` may be a list.
    """

    Params: ClassVar[type[Frozen]] = NoOptions
    operational: ClassVar[frozenset[str]] = frozenset()
    takes_lists: ClassVar[bool] = False

    def __init__(self, params: P) -> None:
        self.params = params

    @classmethod
    def example(cls, folder: Path) -> DatasetConfig:
        """Make the smallest data set that the source can read, for the contract tests.

        Parameters:
            folder: empty; relative URIs are resolved against it.

        Returns:
            A dataset with at least two columns and a few rows, most of them good.
        """
        raise NotImplementedError(f"{cls.__name__} has no example")

    @abstractmethod
    def read(self, dataset: DatasetConfig, settings: Settings) -> pd.DataFrame:
        """Read the dataset in the source's own column names, which are the dataset's here, rows in its own order.

        Numbers may come as text where a cell is not a number; validation decides what becomes of them.

        Raises:
            DataError: if the source is not there or is not what it claims to be.
        """

    def read_batches(self, dataset: DatasetConfig, settings: Settings) -> Iterator[pd.DataFrame]:
        """Read the whole dataset as `read` does, in frames that fit into memory one at a time.

        Raises:
            DataError: as `read`; possibly after the first frames.
        """
        yield self.read(dataset, settings)

    def fingerprint(self, dataset: DatasetConfig, settings: Settings) -> str | None:  # noqa: ARG002 (for subclasses)
        """Return a text that changes when there is something new to read, or `None` if the source cannot tell cheaply.

        Raises:
            DataError: if the source is not there.
        """
        return None


class IncrementalSource(Source[P]):
    """A source that can tell what is new since a position.

    Class attributes:
        is_stream: whether a batch is just what has arrived by now. Of a few rows every one may be bad, so validation
            must quarantine them instead of refusing the batch for its share of bad rows.
    """

    is_stream: ClassVar[bool] = False

    def is_incremental(self, dataset: DatasetConfig, settings: Settings) -> bool:  # noqa: ARG002 (for subclasses)
        """Return whether the source can tell what is new with this URI and these options; if not, it is read whole."""
        return True

    @abstractmethod
    def read_since(self, dataset: DatasetConfig, settings: Settings, position: Position | None) -> Iterator[Batch]:
        """Read what is new or changed since `position` (`None`: everything), in batches that fit into memory.

        Ends when it has caught up with what was there when it began. Rows can repeat, here and in a later call: every
        row is delivered at least once, the newest state of a row last.

        Raises:
            DataError: if the source is not there, is not what it claims to be, or can no longer go on at `position`.
        """

    def acknowledge(self, dataset: DatasetConfig, settings: Settings, position: Position) -> None:
        """Learn that everything up to `position` is stored for good. Never raises for a server that is away."""

    def read(self, dataset: DatasetConfig, settings: Settings) -> pd.DataFrame:
        """Read everything there is now; see `Source.read`."""
        import pandas as pd

        frames = list(self.read_batches(dataset, settings))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=source_columns(dataset))

    def read_batches(self, dataset: DatasetConfig, settings: Settings) -> Iterator[pd.DataFrame]:
        """Read everything there is now in batches; see `Source.read_batches`."""
        for batch in self.read_since(dataset, settings, None):
            yield batch.frame
