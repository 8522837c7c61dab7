"""Which columns of a time series have ended at the present, and which go on because they are known beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

# The share of series in which a column has ended, and of the rows until then that it has; the share of the rows behind
# the present in which another one goes on. A column that ended more than a tenth of the rows ago was given up.
HALF, ENOUGH, TENTH = 0.5, 0.95, 0.1


def columns_ahead(
    cells: pd.DataFrame, times: pd.Series, entity: str | None, horizon: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the columns that have ended where others go on, and those that are known for the horizon.

    In every series a column ends with its last value. Those that end before another one, in at least half of the
    series, have ended, unless they have gaps all the time or were given up long ago; known are those with a value in
    nearly all rows behind, if there are as many as a horizon: fewer are only a delay of the others.

    Parameters:
        cells: of shape (rows, columns), all text, missing ones `None`.
        times: of shape (rows,); a column of the cells.
        entity: the column that names the series.
        horizon: in steps.
    """
    import numpy as np

    order = times.sort_values(kind="stable").index[: int(times.notna().sum())]
    series = np.zeros(len(order), np.int64) if entity is None else cells.loc[order, entity].factorize()[0]
    is_there = cells.loc[order, [name for name in cells if name not in (entity, times.name)]].notna()
    place, count = np.arange(len(order)), int(series.max(initial=-1)) + 1

    def ends(name: str) -> npt.NDArray[np.int64]:
        last = np.full(count, -1, np.int64)
        np.maximum.at(last, series, np.where(is_there[name], place, -1))
        return last

    last = {name: ends(name) for name in map(str, is_there) if is_there[name].any()}
    if not last:
        return (), ()
    latest = np.max(list(last.values()), axis=0)
    behind = {name: place > own[series] for name, own in last.items()}
    is_alive = {
        name: is_there.loc[~late, name].mean() >= HALF and late.mean() <= TENTH for name, late in behind.items()
    }
    ended = tuple(name for name, own in last.items() if is_alive[name] and (own < latest).mean() >= HALF)
    if not ended:
        return (), ()
    # Of several that have ended the present is that of the last.
    present = np.max([last[name] for name in ended], axis=0)
    is_ahead = (place > present[series]) & (place <= latest[series])
    if np.median(np.bincount(series[is_ahead], minlength=count)) < horizon:
        return ended, ()
    known = [name for name in last if name not in ended and is_there.loc[is_ahead, name].mean() >= ENOUGH]
    return ended, tuple(known)
