"""What a splitter knows about samples, of small series and tables: where and when they are."""

from __future__ import annotations

import numpy as np

from mlplatform.datamodule.folds import SampleIndex
from mlplatform.plugins import SPLITTERS

HOUR = np.timedelta64(1, "h")


def series_index(hours: int = 100, entities: int = 2, lookback: int = 6, horizon: int = 4) -> SampleIndex:
    """Return the origins of hourly series; each further entity starts ten hours later."""
    times, samples, offset = [], [], 0
    for entity in range(entities):
        steps = np.arange(10 * entity, hours)
        times.append(np.datetime64("2024-01-01", "ns") + steps * HOUR)
        samples.append(offset + np.arange(lookback - 1, len(steps) - horizon))
        offset += len(steps)
    groups = np.repeat([f"unit {entity}" for entity in range(entities)], [len(each) for each in times]).astype(object)
    return SampleIndex(np.concatenate(samples), np.concatenate(times), HOUR, horizon, groups=groups)


def fleet_index() -> SampleIndex:
    """Return the origins of six series, for splitters that hold out whole ones."""
    return series_index(entities=6)


def table_index(rows: int = 60) -> SampleIndex:
    """Return the rows of a table: every one but every seventh is a sample; a third of the labels are `rare`.

    There are twelve groups of five rows.
    """
    samples = np.array([row for row in range(rows) if row % 7])
    labels = np.array(["rare" if row % 3 == 0 else "common" for row in range(rows)], dtype=object)
    times = np.full(rows, np.datetime64("2000-01-01", "ns"))
    groups = np.array([f"site {row % 12}" for row in range(rows)], dtype=object)
    return SampleIndex(samples, times, np.timedelta64(0), 0, labels, groups)


def index_for(name: str) -> SampleIndex:
    """Return samples that suit the splitter called `name`."""
    plugin = SPLITTERS.get(name)
    if "forecast" not in plugin.tasks:
        return table_index()
    return fleet_index() if plugin.separates == "groups" else series_index()
