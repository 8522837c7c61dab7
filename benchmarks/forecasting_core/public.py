"""Seven public sets, as a new user has them: real dates, gaps, one file of at most twelve lines of YAML.

They come with packages of the index (the extra `bench`): statsmodels, vega_datasets and pmdarima. Settings of
`base/forecast` were chosen on other series; what was seen of these meanwhile, docs/modelling.md says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from forecasting_core.series import SeriesSet

# What a user writes; `entity_column` is left out for a single series.
EXPERIMENT = """\
# @package _global_
defaults: [/base/forecast, _self_]
name: bench
dataset:
  name: series
  source: {{uri: series.csv}}
  time_column: time
{entity}  frequency: {frequency}
  columns: {{y: {{}}}}
targets: [y]
"""

# Eleven weeks of training rows are too few for folds of four weeks.
WEEKS = "split: {reference_steps: 336, cv: {params: {validation_steps: 336}}}\n"


def airline() -> SeriesSet:
    """Airline passengers of the world by month, 1949 to 1960 (Box and Jenkins)."""
    from pmdarima.datasets import load_airpassengers

    return _set("airline", {"y": _dated(load_airpassengers(), "1949-01-01", "MS")}, "MS", 12, origins=3)


def macro() -> SeriesSet:
    """Five series of the economy of the United States by quarter, 1959 to 2009."""
    import statsmodels.api as statsmodels

    table = statsmodels.datasets.macrodata.load_pandas().data
    names = ("realgdp", "realcons", "realinv", "cpi", "unemp")
    return _set("macro", {name: _dated(table[name], "1959-01-01", "QS") for name in names}, "QS", 4, origins=8)


def co2() -> SeriesSet:
    """Carbon dioxide on Mauna Loa by week, 1958 to 2001, with gaps."""
    import statsmodels.api as statsmodels

    return _set("co2", {"y": statsmodels.datasets.co2.load_pandas().data["co2"]}, "W-SAT", 52, origins=4)


def seattle() -> SeriesSet:
    """Highest temperature of the day in Seattle, 2012 to 2015."""
    from vega_datasets import local_data

    return _set("seattle", {"y": local_data.seattle_weather().set_index("date")["temp_max"]}, "D", 7, origins=20)


def employment() -> SeriesSet:
    """Employees in 23 branches and sums of them in the United States by month, 2006 to 2015."""
    from vega_datasets import local_data

    table = local_data.us_employment()
    table.index = pd.DatetimeIndex(pd.to_datetime(table.pop("month")))
    return _set("employment", {name: table[name] for name in table}, "MS", 12, origins=2)


def demand() -> SeriesSet:
    """Half-hourly demand for electricity in England and Wales, twelve weeks of 2000 (Taylor)."""
    from pmdarima.datasets import load_taylor

    return _set("demand", {"y": _dated(load_taylor(), "2000-06-05", "30min")}, "30min", 48, origins=7, more=WEEKS)


def sf_temps() -> SeriesSet:
    """Normal temperatures in San Francisco by hour of 2010; the hour that the clocks leave out in spring is a gap."""
    from vega_datasets import local_data

    return _set("sf_temps", {"y": local_data.sf_temps().set_index("date")["temp"]}, "h", 24, origins=14)


PUBLIC: dict[str, Callable[[], SeriesSet]] = {
    made.__name__: made for made in (airline, macro, co2, seattle, employment, demand, sf_temps)
}


def _dated(values: Any, start: str, frequency: str) -> pd.Series:
    array = np.asarray(values, dtype=np.float64)
    return pd.Series(array, pd.date_range(start, periods=len(array), freq=frequency))


def _set(
    name: str, series: dict[str, pd.Series], frequency: str, season: int, origins: int, more: str = ""
) -> SeriesSet:
    """Return series on their grid, a season ahead from so many origins that are a season apart.

    Parameters:
        more: lines of the experiment beside what all have.
    """
    pieces = []
    for entity, values in series.items():
        whole = values.asfreq(frequency)
        times = pd.DatetimeIndex(whole.index).tz_localize("UTC").as_unit("ns")
        rows = {"entity_id": entity, "event_timestamp": times, "y": whole.to_numpy(np.float32)}
        pieces.append(pd.DataFrame(rows))
    entity = "  entity_column: series\n" if len(series) > 1 else ""
    text = EXPERIMENT.format(entity=entity, frequency=frequency) + more
    frame = pd.concat(pieces, ignore_index=True)
    return SeriesSet(name, frame, frequency, season, season, origins=origins, experiment=text)
