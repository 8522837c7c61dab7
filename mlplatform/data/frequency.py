"""The frequency of a dataset that leaves it to its data: read off the first rows, said, and kept."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from mlplatform.calendars import CalendarError, infer_frequency, make_calendar, ns_of, zone_of
from mlplatform.config import AUTO, DatasetConfig, FoundFrequency, read_found, write_found
from mlplatform.data.errors import DataError
from mlplatform.data.parsing import parse_local_times
from mlplatform.data.sources import Source, tells_news
from mlplatform.settings import Settings

# So many entities, those with the most rows, are looked at.
ENTITIES = 100

logger = logging.getLogger(__name__)


def settle_frequency(dataset: DatasetConfig, source: Source[Any], settings: Settings, *, anew: bool) -> DatasetConfig:
    """Return the dataset with the frequency that its data have, if its own is `auto`.

    One that was found before stays in force until `keep_frequency` says that the rows are stored.

    Parameters:
        anew: look again although a frequency was found before.

    Raises:
        DataError: if the first rows of the source show no frequency.
    """
    if dataset.frequency != AUTO:
        return dataset
    before = read_found(dataset.name, settings)
    found = None if anew else before
    if found is None:
        found = _look(dataset, _first_rows(dataset, source, settings))
        if before is None:
            write_found(dataset.name, found, settings)
        name = make_calendar(found.frequency, dataset.timezone).name
        logger.info(
            "Dataset %s: frequency auto is %s (%s), %.1f%% of %d times are on its grid; the YAML may say so",
            *(dataset.name, found.frequency, name, 100 * found.share, found.times),
        )
    return dataset.model_copy(update={"frequency": found.frequency})


def keep_frequency(dataset: DatasetConfig, settled: DatasetConfig, settings: Settings) -> None:
    """Put the frequency of stored rows in the place of what was found before."""
    found = read_found(dataset.name, settings) if dataset.frequency == AUTO else None
    if found is not None and settled.frequency is not None and found.frequency != settled.frequency:
        write_found(dataset.name, found.model_copy(update={"frequency": settled.frequency}), settings)


def _first_rows(dataset: DatasetConfig, source: Source[Any], settings: Settings) -> pd.DataFrame:
    batches: Iterable[pd.DataFrame] = source.read_batches(dataset, settings)
    if tells_news(source, dataset, settings):
        batches = (batch.frame for batch in source.read_since(dataset, settings, None))
    first = next(iter(batches), None)
    if first is None or not len(first):
        raise DataError(f"dataset {dataset.name!r}: frequency is auto, but the source has no rows yet; say it instead")
    return first


def _look(dataset: DatasetConfig, rows: pd.DataFrame) -> FoundFrequency:
    assert dataset.time_column is not None
    owners = None if dataset.entity_column is None else rows[dataset.entity_column]
    times = parse_local_times(
        rows[dataset.time_column], owners, zone_of(dataset.timezone), unit=dataset.time_unit
    ).times
    codes = np.zeros(len(rows), dtype=np.int64) if owners is None else pd.factorize(owners)[0]
    known = ~np.isnat(times) & (codes >= 0)
    frame = pd.DataFrame({"entity": codes[known], "moment": ns_of(times[known])})
    largest = frame["entity"].value_counts().index[:ENTITIES]
    series = [own.to_numpy() for _, own in frame[frame["entity"].isin(largest)].groupby("entity")["moment"]]
    try:
        found = infer_frequency(series, dataset.timezone)
    except CalendarError as error:
        raise DataError(f"dataset {dataset.name!r}: {error}") from error
    return FoundFrequency(frequency=found.frequency, share=found.share, times=found.times)
