"""Which entities, or groups of them, have drifted: what changes in one of a thousand is lost in the mean of all.

Asked is what can be asked of many at a bounded cost: level and spread of every numeric feature, shares of categories
and unseen ones of every categorical one, of every group, by the calibration of `evidence`. The training blocks are the
same for all groups, so that what does not depend on a group's values is computed once; the few blocks that a group
lacks are filled in between their neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, DriftConfig
from mlplatform.monitoring.blocks import Blocks
from mlplatform.monitoring.evidence import Evidence, Judge
from mlplatform.monitoring.questions import (
    CATEGORIES,
    CATEGORY_FLOOR,
    LEVEL,
    LOG_FLOOR,
    SPREAD,
    unseen_category,
)
from mlplatform.monitoring.report import name_in_group
from mlplatform.monitoring.statistics import category_distances, category_shares, entity_spread, level_sums

Floats = npt.NDArray[np.float64]

# Of the training blocks, and of the recent ones, a group must have so many.
PRESENT = 0.75


@dataclass(frozen=True)
class Groups:
    """Groups of entities.

    Attributes:
        names: of the groups.
        of_entity: of shape (entities,): the number of each entity's group, -1 of one that is in none.
        why_none: why there are none; empty if there are, or nobody asked for them.
    """

    names: tuple[str, ...] = ()
    of_entity: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    why_none: str = ""

    @classmethod
    def of(cls, config: DriftConfig, blocks: Blocks) -> Groups:
        """Return the groups of the entities of training rows; none where all would be in one."""
        if config.group_by is None or blocks.days is None or len(blocks.entities) < 2:
            return cls()
        column, entities = config.group_by, pd.Index(list(blocks.entities))
        if column == "entity":
            codes, found = np.arange(len(entities)), entities
        elif column in blocks.frame:
            rows = blocks.frame[[ENTITY, column]].dropna().drop_duplicates(ENTITY, keep="last")
            codes, found = pd.factorize(rows.set_index(ENTITY)[column].reindex(entities))
        else:
            return cls(why_none=f"drift.group_by names {column!r}, which the rows do not have")
        if len(found) > config.max_groups:
            return cls(
                why_none=f"{len(found)} groups by {column!r} are more than drift.max_groups, "
                f"{config.max_groups}: none is judged; name a column with fewer, or raise it"
            )
        return cls(tuple(str(each) for each in found), codes.astype(np.int64)) if len(found) > 1 else cls()

    def sums(self, per_entity: Floats) -> Floats:
        """Return sums over the entities of each group: (blocks, entities) to (blocks, groups); NaN counts nothing."""
        summed = np.zeros((len(self.names), len(per_entity)))
        inside = self.of_entity >= 0
        np.add.at(summed, self.of_entity[inside], np.nan_to_num(per_entity.T[inside]))
        return summed.T


def ask_groups(
    judge: Judge,
    groups: Groups,
    standards: Mapping[str, Floats],
    codes: Mapping[str, tuple[npt.NDArray[np.int64], int]],
    min_effect: float,
) -> list[Evidence]:
    """Ask about every feature of every group.

    Parameters:
        standards: per numeric feature, its standardised values, of shape (blocks, steps, entities).
        codes: per categorical feature, the codes of its values, of the same shape, and how many categories there are.
        min_effect: the least change of level that matters, in standard deviations of the training.
    """
    found: list[Evidence] = []
    if not groups.names:
        return found
    for column, standard in standards.items():
        for kind, values, floor in (
            (LEVEL, _levels(groups, standard), min_effect),
            (SPREAD, _spreads(groups, standard), LOG_FLOOR),
        ):
            for name, series in zip(groups.names, values.T, strict=True):
                whole = _whole(series, judge.blocks)
                if whole is not None:
                    found.append(judge.mean_of_blocks(name_in_group(column, name), kind, whole, floor))
    for column, (of_rows, categories) in codes.items():
        for number, name in enumerate(groups.names):
            own = of_rows[:, :, groups.of_entity == number]
            found += _ask_categories(judge, name_in_group(column, name), own, categories)
    return found


def _ask_categories(judge: Judge, column: str, codes: npt.NDArray[np.int64], categories: int) -> list[Evidence]:
    """Ask about a categorical feature of one group, where enough of its blocks are there."""
    blocks = judge.blocks
    shares = category_shares(codes, categories)
    present = np.isfinite(shares[:, 0])
    if not _is_enough(present, blocks):
        return []
    # A window of a few absent blocks is the mean of the others; of none there is nothing to say.
    distances = category_distances(shares, blocks)
    found = [judge.window(column, CATEGORIES, np.arange(blocks.count), distances, CATEGORY_FLOOR, one_sided=True)]
    return found + unseen_category(blocks, column, codes)


def _levels(groups: Groups, standard: Floats) -> Floats:
    """Return the level of each group's blocks, of shape (blocks, groups), by the rule of `statistics.level`."""
    summed, counted = level_sums(standard)
    total, count = groups.sums(summed), groups.sums(counted)
    size = standard.shape[1] * np.bincount(groups.of_entity[groups.of_entity >= 0], minlength=len(groups.names))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(count * 8 >= size, total / count, np.nan))


def _spreads(groups: Groups, standard: Floats) -> Floats:
    """Return the spread of each group's blocks, of shape (blocks, groups)."""
    own = entity_spread(standard)
    total, count = groups.sums(own), groups.sums(np.isfinite(own).astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(count > 0, total / count, np.nan))


def _is_enough(present: npt.NDArray[np.bool_], blocks: Blocks) -> bool:
    """Return whether a group has enough of the training blocks, and of the recent ones."""
    parts = (blocks.training, np.arange(blocks.count)[blocks.recent])
    return all(len(part) > 0 and float(present[part].mean()) >= PRESENT for part in parts)


def _whole(series: Floats, blocks: Blocks) -> Floats | None:
    """Return a statistic per block without holes in training and recent blocks; `None` where too much is missing."""
    present = np.isfinite(series)
    if not _is_enough(present, blocks):
        return None
    if present.all():
        return series
    places = np.arange(len(series))
    filled = np.interp(places, places[present], series[present])
    recent = np.arange(blocks.count)[blocks.recent]
    # Not by neighbours: the window's mean is that of what is there.
    filled[recent[~present[recent]]] = series[recent][present[recent]].mean()
    return np.asarray(filled)
