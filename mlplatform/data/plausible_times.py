"""Times that no clock that is right would have given: after the present, or far from all other rows.

Here: finding them in a batch of times, and the span of the others; also that the first rows of all were such. Not here:
times that do not parse or lie off the grid.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Span = tuple[int, int]

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# So many rows settle where the rows of a dataset are. One bad message may be the first of a stream, or among the first.
FIRST_ROWS = 100


class Judged(NamedTuple):
    """What was found among times.

    Attributes:
        late: whether a time is after the latest one allowed, of shape (rows,).
        far: whether a time is far from the bulk, of shape (rows,).
        span: first and last of the others, and of the span that was given, in nanoseconds since 1970 UTC; None if there
            are none.
    """

    late: Bool
    far: Bool
    span: Span | None


def judge_times(
    times: npt.NDArray[np.datetime64], latest: dt.datetime, max_gap: dt.timedelta, span: Span | None = None
) -> Judged:
    """Find the times that are not plausible.

    Times that follow each other without a gap of more than `max_gap` belong together. The bulk is what belongs to the
    earlier rows, and without any the largest such group, the later one of two that are equal. What comes before or
    after the bulk is far from it; after earlier rows, though, a source may have been silent for as long as it likes.

    Parameters:
        times: of shape (rows,), datetime64[ns] in UTC; NaT is neither late nor far.
        span: first and last time of earlier rows, in nanoseconds since 1970 UTC.
    """
    is_time = ~np.isnat(times)
    values = times.astype("datetime64[ns]").astype(np.int64)
    late = is_time & (values > _nanoseconds(latest - EPOCH))
    candidates = is_time & ~late
    bulk = _bulk(values[candidates], _nanoseconds(max_gap), span)
    if bulk is None:
        return Judged(late, np.zeros(len(times), dtype=bool), span)
    first, last = bulk
    far = candidates & ((values < first) | (values > last))
    good = values[candidates & ~far]
    ends = [*(span or ()), *((int(good.min()), int(good.max())) if len(good) else ())]
    return Judged(late, far, (min(ends), max(ends)) if ends else None)


class Settled(NamedTuple):
    """What the first rows of a dataset say together.

    Attributes:
        first: where their bulk begins, in nanoseconds since 1970 UTC.
        early: the times of the bulk; `None` once there are enough of them.
    """

    first: int
    early: tuple[int, ...] | None


def settle(early: Sequence[int], times: npt.NDArray[np.int64], max_gap: dt.timedelta) -> Settled | None:
    """Return where the bulk of the first rows begins, all of them judged together; `None` without any.

    It is their largest group without a gap of more than `max_gap`, the later one of two that are equal.

    Parameters:
        early: times of rows of before, in nanoseconds since 1970 UTC.
        times: those of a batch that follows them, of shape (rows,).
    """
    values = np.concatenate([np.asarray(early, dtype=np.int64), times])
    bulk = _bulk(values, _nanoseconds(max_gap), None)
    if bulk is None:
        return None
    inside = values[values >= bulk[0]]
    return Settled(bulk[0], tuple(inside.tolist()) if len(inside) < FIRST_ROWS else None)


def _bulk(values: npt.NDArray[np.int64], max_gap: int, span: Span | None) -> Span | None:
    """Return the first and last time that may belong to the rows; None if there is nothing to judge by."""
    ends = np.asarray(span or (), dtype=np.int64)
    ordered = np.unique(np.concatenate([values, ends]))
    if not len(ordered):
        return None
    # Without a sign, because nanoseconds reach over 584 years and a difference of int64 over 292 only.
    gaps = np.diff(ordered.view(np.uint64))
    breaks = np.flatnonzero(gaps > max_gap) + 1
    starts, stops = np.append(0, breaks), np.append(breaks, len(ordered)) - 1
    if span is None:
        sizes = np.diff(np.append(np.searchsorted(np.sort(values), ordered[starts]), len(values)))
        chosen = len(sizes) - 1 - int(np.argmax(sizes[::-1]))
        return int(ordered[starts[chosen]]), int(ordered[stops[chosen]])
    chosen = int(np.searchsorted(ordered[starts], span[0], side="right")) - 1
    return int(ordered[starts[chosen]]), max(int(ordered[-1]), span[1])


def _nanoseconds(length: dt.timedelta) -> int:
    return length // dt.timedelta(microseconds=1) * 1000
