"""The contract of a data source, and the factory that reads a dataset through the source its URI names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from mlplatform.config import DatasetConfig, Frozen, check_source, source_scheme
from mlplatform.data.columns import require_columns
from mlplatform.data.errors import DataError
from mlplatform.plugins import SOURCES
from mlplatform.settings import Settings

if TYPE_CHECKING:
    # Configuration is checked against the sources' options without loading pandas.
    import pandas as pd

P = TypeVar("P", bound=Frozen)


class NoOptions(Frozen):
    """The options of a source that has none."""


class Source(ABC, Generic[P]):
    """A place that data is read from.

    Class attributes:
        Params: validates `source.options` of the dataset.
    """

    Params: ClassVar[type[Frozen]] = NoOptions

    def __init__(self, params: P) -> None:
        self.params = params

    @abstractmethod
    def read(self, dataset: DatasetConfig, settings: Settings) -> pd.DataFrame:
        """Read the dataset in the source's own column names, rows in the source's own order.

        Numbers may come as text where a cell is not a number; validation decides what becomes of them.

        Raises:
            DataError: if the source is not there or is not what it claims to be.
        """


def read_source(dataset: DatasetConfig, settings: Settings) -> pd.DataFrame:
    """Read a dataset through the source that its URI names.

    Returns:
        A frame that has at least the dataset's time, entity and data columns and at least one row.

    Raises:
        ConfigError: if no source reads the URI, or the source refuses `source.options`.
        DataError: if the source is not there, is not what it claims to be, lacks a column or has no rows.
    """
    check_source(dataset)
    plugin = SOURCES.get(source_scheme(dataset.source.uri))
    frame: pd.DataFrame = plugin(plugin.Params.model_validate(dataset.source.options)).read(dataset, settings)
    require_columns(frame.columns, dataset, repr(dataset.source.uri))
    if frame.empty:
        raise DataError(
            f"dataset {dataset.name!r}: {dataset.source.uri!r} has columns but no rows; at least one is needed"
        )
    return frame
