"""Times without a zone, in the local time of their dataset.

Where clocks go back, an hour comes twice: of two rows of an entity that show the same time the first is the earlier
one, in the order of the source, or the later one where the source runs backwards; of rows that come once, those after
the clock of their entity went back are later. Any other is the earlier one. A time that clocks skip is read with the
offset of before.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.calendars import Zone

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]

ONE_DAY_NS = 24 * 3_600 * 1_000_000_000
HALF_DAY_NS = ONE_DAY_NS // 2
# Entity (as text) and wall time, in nanoseconds, of rows in an hour that comes twice.
Seen = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Localised:
    """Local times as moments.

    Attributes:
        moments: of shape (rows,), nanoseconds since 1970 UTC.
        skipped: whether no clock shows the time, of shape (rows,).
        seen: rows of the newest hour that came twice, for the batch that follows.
    """

    moments: Int64
    skipped: Bool
    seen: Seen


def localise(wall: Int64, entities: npt.NDArray[np.generic], zone: Zone, seen: Seen = ()) -> Localised:
    """Return the moments of local times.

    Parameters:
        wall: of shape (rows,), in the order of the source.
        entities: of shape (rows,).
        seen: what the batch before returned.
    """
    twice = np.flatnonzero(zone.is_twice(wall))
    later = np.zeros(len(wall), dtype=bool)
    if len(twice):
        later[twice], seen = _later(wall, twice, entities, seen)
    if seen and len(wall) and abs(int(wall[-1]) - seen[-1][1]) > ONE_DAY_NS:
        seen = ()  # the source has left that night, and what many entities did in it need not be kept
    return Localised(zone.moments(wall, later), zone.is_skipped(wall), seen)


def _later(wall: Int64, twice: Int64, entities: npt.NDArray[np.generic], seen: Seen) -> tuple[Bool, Seen]:
    """Return which rows in hours that come twice are later, and what to remember of them."""
    own = np.array([*(entity for entity, _ in seen), *map(str, entities[twice].tolist())], dtype=object)
    walls = np.array([*(moment for _, moment in seen), *wall[twice]], dtype=np.int64)
    # Hours that come twice lie around midnight, so nights are told apart by noon.
    frame = pd.DataFrame({"entity": own, "wall": walls, "night": (walls + HALF_DAY_NS) // ONE_DAY_NS})
    backwards = _backwards(wall, entities, seen)
    frame["backwards"] = frame["entity"].isin(backwards)
    forward, reverse = frame[~frame["backwards"]], frame[frame["backwards"]].iloc[::-1]
    later = pd.concat([_later_in_order(part) for part in (forward, reverse) if len(part)]).sort_index().to_numpy()
    newest = frame[frame["night"] == frame["night"].iloc[-1]]
    return later[len(seen) :], tuple(zip(newest["entity"].tolist(), newest["wall"].tolist(), strict=True))


def _later_in_order(rows: pd.DataFrame) -> pd.Series:
    """Return which rows are later, of entities whose rows go forward in time."""
    nights = rows.groupby(["entity", "night"], sort=False)
    went_back = nights["wall"].diff() < 0
    # With several steps back the rows have no order that could tell.
    has_order = went_back.groupby([rows["entity"], rows["night"]]).transform("sum") == 1
    after = went_back.groupby([rows["entity"], rows["night"]]).cumsum() > 0
    again = rows.groupby(["entity", "wall"], sort=False).cumcount() > 0
    return again | (has_order & after)


def _backwards(wall: Int64, entities: npt.NDArray[np.generic], seen: Seen) -> set[str]:
    """Return the entities, as text, whose last row is before their first, unless they have come forward up to it."""
    ends = pd.Series(wall).groupby(pd.Series(entities), sort=False).agg(["first", "last"])
    firsts = {str(entity): int(first) for entity, first in ends["first"][ends["last"] < ends["first"]].items()}
    before: dict[str, list[int]] = {entity: [] for entity in firsts}
    for entity, moment in seen:
        if entity in before:
            before[entity].append(moment)
    # Clocks that are set back between the first and the last row of a batch make no source run backwards.
    return {entity for entity, first in firsts.items() if not _rises([*before[entity][-2:], first])}


def _rises(walls: list[int]) -> bool:
    return len(walls) > 1 and all(later > earlier for earlier, later in pairwise(walls))
