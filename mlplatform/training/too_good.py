"""Columns that are too good to be true: one that is the target in disguise, and known when the answer is asked for.

A copy of the target, its lead and a centred mean of it train without any error and score better than anything honest
could. What gives them away is that, on the training rows, one column settles what the target's own past leaves open.
An honest column may do so, too (a plan that is always kept): whether it is, only a person can say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlplatform.datamodule import DataModule, Int64, deal

Float64 = npt.NDArray[np.float64]

# Of what is left open a column may settle no more than this; noise of measurement alone leaves more.
LIMIT = 0.99
# Steps of the past, and of a known future around the step in question, that are looked at. Daily cycles at one hour.
LAGS = 48
ROWS = 4000
# Least rows per coefficient.
ROWS_PER_COEFFICIENT = 3
LEAST_ROWS = 30
# Rows in a row, and parts that such stretches are dealt to, of which all but a row's own say what its category means.
STRETCH, PARTS = 25, 4
# Folds that the rows of a table are answered in: of more, fewer extremes lie beyond all that is known.
FOLDS = 10
# A target that its own past leaves less of open, as a share of its variance, needs no column.
OPEN = 1e-6


@dataclass(frozen=True)
class TooGood:
    """A column that says too much about a target.

    Attributes:
        share: of what is open about the target, how much the column settles: at least `LIMIT`, at most 1.
        evidence: one sentence for people, which names the column.
    """

    column: str
    target: str
    share: float
    evidence: str


def find_too_good(module: DataModule) -> list[TooGood]:
    """Return the columns that say more about a target than a measurement can, judged on the training rows.

    Of a forecast every input is judged by least squares: the target some steps ahead, from its own past, with and
    without what is known of the column, as it stands and as the target that goes with its value at other rows, at the
    lead at which the two go together best. Of a table every input is judged alone, by cross-validated answers. Too few
    rows to judge by give no finding.
    """
    judged = _forecast(module) if module.config.task == "forecast" else _table(module)
    return [finding for finding in judged if finding.share >= LIMIT]


def _forecast(module: DataModule) -> Iterator[TooGood]:
    config, panel = module.config, module.panel
    codes = np.repeat(np.arange(len(panel.offsets) - 1), np.diff(panel.offsets))
    # Rows as they are, and in the level and spread of their entity, which a column may have them in.
    forms = [_as_it_is, *([_standardised] if len(panel.offsets) > 2 else [])]
    ahead = sorted({*range(1, config.horizon + 1, min(config.lookback, LAGS)), config.horizon})
    for target in config.targets:
        truths = [form(panel.columns[target].astype(np.float64), codes) for form in forms]
        for name in config.features.columns:
            if name == target or name in config.features.static:
                continue
            known = name in config.features.known_future
            disguise = _unmasked(panel.columns[name], truths[-1], codes, config.lookback + config.horizon)
            found = [
                finding
                for form, truth in zip(forms, truths, strict=True)
                for steps in ahead
                if (finding := _ahead(module, (target, name), truth, disguise.of(form, codes), steps, known))
            ]
            if found:
                yield max(found, key=lambda finding: finding.share)


class _Disguise(NamedTuple):
    """A column, and what it would say about the target some steps later if it stood for that.

    Attributes:
        column: numbers of shape (rows,); of a category those that it would stand for.
        meant: of shape (rows,): the target `lead` steps later of the rows whose value is nearest, from stretches of
            rows other than the row's own, so that a value that stands once says nothing of itself.
        lead: the steps by which column and target go together best.
    """

    column: Float64
    meant: Float64
    lead: int

    def of(self, form: Callable[[Float64, Int64], Float64], codes: Int64) -> _Disguise:
        """Return the same with its numbers in another form."""
        return self._replace(column=form(self.column, codes), meant=form(self.meant, codes))


def _unmasked(column: npt.NDArray[np.generic], truth: Float64, codes: Int64, reach: int) -> _Disguise:
    values, is_kind = _numbers(column), column.dtype == object and not _are_numbers(column)
    judged = np.arange(0, len(values), max(1, len(values) // ROWS))
    # Of numbers ranks are compared, so that any rising function of the target is as good as itself.
    compared, wanted = (values, truth) if is_kind else (_ranks(values), _ranks(truth))
    best, lead = 0.0, 0
    for steps in range(min(reach, len(values) - 1)):
        there = judged[: np.searchsorted(judged, len(values) - steps)]
        there = there[codes[there] == codes[there + steps]]
        together = _association(compared[there], wanted[there + steps], is_kind)
        # The first of equals, and of what is no better than chance none.
        if together > best + 0.01:
            best, lead = together, steps
    later = np.full(len(truth), np.nan)
    later[: len(truth) - lead] = truth[lead:]
    later[: len(truth) - lead][codes[: len(truth) - lead] != codes[lead:]] = np.nan
    meant = _means_by_kind(values, later) if is_kind else _nearest(values, later, codes)
    return _Disguise(meant if is_kind else values, meant, lead)


def _association(values: Float64, truth: Float64, is_kind: bool) -> float:
    """Return how much of the truth goes with the values: 1 for all of it."""
    there = np.isfinite(values) & np.isfinite(truth)
    values, truth = values[there], truth[there]
    if len(values) < LEAST_ROWS or not values.std() or not truth.std():
        return 0.0
    if not is_kind:
        return abs(float(np.corrcoef(values, truth)[0, 1]))
    counted = np.bincount(values.astype(np.int64))
    means = np.bincount(values.astype(np.int64), weights=truth) / np.maximum(counted, 1)
    own = means[values.astype(np.int64)]
    return float(own.var() / truth.var() - (counted > 0).sum() / len(values))


def _ranks(values: Float64) -> Float64:
    """Return the ranks of numbers, equal ones having one; NaN where a number is missing."""
    there = np.isfinite(values)
    ranks = np.full(len(values), np.nan)
    _, positions, counts = np.unique(values[there], return_inverse=True, return_counts=True)
    ranks[there] = (np.cumsum(counts) - (counts - 1) / 2)[positions]
    return ranks


def _as_it_is(values: Float64, _codes: Int64) -> Float64:
    return values


def _standardised(values: Float64, codes: Int64) -> Float64:
    """Return numbers in the level and spread of their entity, so that what differs by these only is one."""
    there = np.isfinite(values)
    counts = np.maximum(np.bincount(codes[there], minlength=codes.max(initial=0) + 1), 1)
    means = np.bincount(codes[there], weights=values[there], minlength=len(counts)) / counts
    centred = values - means[codes]
    spread = np.sqrt(np.bincount(codes[there], weights=centred[there] ** 2, minlength=len(counts)) / counts)
    return np.asarray(centred / np.where(spread > 0, spread, 1)[codes])


def _nearest(values: Float64, truth: Float64, codes: Int64) -> Float64:
    """Return the truth between the nearest values of the same entity in other stretches, of shape (rows,)."""
    low, high = np.nanmin(values, initial=np.inf), np.nanmax(values, initial=-np.inf)
    # Entities lie side by side on one axis, further apart than any value within one.
    places = 2.0 * codes + (values - low) / (high - low if high > low else 1)
    meant = np.full(len(values), np.nan)
    known = np.isfinite(places) & np.isfinite(truth)
    for own in _stretches(len(values)):
        others = known & ~own
        if others.any():
            distinct, positions = np.unique(places[others], return_inverse=True)
            means = np.bincount(positions, weights=truth[others]) / np.bincount(positions)
            here = own & np.isfinite(places)
            meant[here] = np.interp(places[here], distinct, means)
    return meant


def _stretches(rows: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield the parts that stretches of rows are dealt to, as masks of shape (rows,)."""
    for part in range(PARTS):
        yield np.arange(rows) // STRETCH % PARTS == part


def _means_by_kind(codes: Float64, truth: Float64) -> Float64:
    """Return for every row the mean of the truth where the category is the same in other stretches; NaN without any."""
    means = np.full(len(codes), np.nan)
    known = np.isfinite(codes) & np.isfinite(truth)
    size = int(np.nanmax(codes, initial=-1)) + 1
    for own in _stretches(len(codes)):
        others = known & ~own
        counted = np.bincount(codes[others].astype(np.int64), minlength=size)
        summed = np.bincount(codes[others].astype(np.int64), weights=truth[others], minlength=size)
        table = np.divide(summed, counted, out=np.full(size, np.nan), where=counted > 0)
        here = own & np.isfinite(codes)
        means[here] = table[codes[here].astype(np.int64)]
    return means


def _ahead(
    module: DataModule, names: tuple[str, str], truth: Float64, disguise: _Disguise, ahead: int, known: bool
) -> TooGood | None:
    """Judge a column by the target `ahead` steps after the origin.

    Parameters:
        names: of target and column.
    """
    config, column, (target, name) = module.config, disguise.column, names
    origins = module.rows[:: max(1, len(module.rows) // ROWS)]
    lags, last = min(config.lookback, LAGS), config.horizon if known else 0
    there = ahead - disguise.lead  # where the column would tell, seen from the origin
    while lags:
        past = np.arange(1 - lags, 1)
        seen = np.union1d(past, np.arange(ahead - lags, ahead + lags + 1)) if known else past
        seen = np.union1d(seen, np.arange(there - lags // 2, there + lags // 2 + 1))
        # Before the lookback of the first origin there may be another entity.
        seen = seen[(seen > -config.lookback) & (seen <= last)]
        at = np.array([there], dtype=np.int64) if -config.lookback < there <= last else past[:0]
        y, own = truth[origins + ahead], _around(truth, origins, past)
        others = np.hstack([_around(column, origins, seen), _around(disguise.meant, origins, at)])
        whole = np.isfinite(y) & np.isfinite(own).all(axis=1) & np.isfinite(others).all(axis=1)
        if whole.sum() >= max(LEAST_ROWS, ROWS_PER_COEFFICIENT * (len(past) + others.shape[1] + 1)):
            break
        lags //= 2
    else:
        return None
    y, own, others = y[whole], own[whole], others[whole]
    before, after = _open(y, own), _open(y, np.hstack([own, others]))
    if before <= OPEN * y.var():
        return None
    share = max(0.0, 1 - after / before)
    at_once = ""
    if known:
        values = column[origins + ahead][whole]
        together = np.corrcoef(values, y)[0, 1] if values.std() and y.std() else 0.0
        at_once = f"; it is known beforehand, and its correlation with {target!r} of the same time is {together:.4f}"
    evidence = (
        f"column {name!r} settles {share:.2%} of what the past of {target!r} leaves open {ahead} step"
        f"{'' if ahead == 1 else 's'} ahead, on {len(y)} training samples{at_once}"
    )
    return TooGood(name, target, share, evidence)


def _around(values: Float64, origins: Int64, offsets: Int64) -> Float64:
    return np.asarray(values[origins[:, None] + offsets])


def _open(y: Float64, inputs: Float64) -> float:
    """Return the variance of `y` that a linear function of the inputs leaves open, without bias."""
    from scipy.linalg import lstsq

    centred = inputs - inputs.mean(axis=0)
    spread = centred.std(axis=0)
    design = np.column_stack([np.ones(len(y)), centred / np.where(spread > 0, spread, 1)])
    # By QR with pivots, which takes a fraction of the time of a decomposition into singular values.
    coefficients, _, rank, _ = lstsq(design, y, lapack_driver="gelsy", check_finite=False)
    return float(((y - design @ coefficients) ** 2).sum() / (len(y) - int(rank)))


def _table(module: DataModule) -> Iterator[TooGood]:
    config = module.config
    target = config.targets[0]
    rows = module.rows[:: max(1, len(module.rows) // ROWS)]
    for name in config.features.columns:
        values = _numbers(module.panel.columns[name][rows])
        present = np.isfinite(values)
        if present.sum() < LEAST_ROWS:
            continue
        chosen = rows[present]
        truth = module.panel.columns[target][chosen]
        # Copies of a row are in one fold, or a tree would know the answer from the other.
        identities = chosen.astype(np.uint64) if module.identities is None else module.identities[chosen]
        share = _alone(values[present], truth, deal(identities, FOLDS, 0), config.task == "classification")
        what = "mean share of right answers over the classes" if config.task == "classification" else "R²"
        evidence = f"column {name!r} alone tells {target!r}: {what} {share:.2%}, cross-validated on {len(chosen)} rows"
        yield TooGood(name, target, share, evidence)


def _alone(values: Float64, truth: npt.NDArray[np.generic], fold_of: Int64, classes: bool) -> float:
    """Return how well one column answers: balanced accuracy of a tree for classes, else the best R².

    That is of a tree, or of ranks between the nearest values: neither few extremes nor few rows hide a copy from these.
    """
    from sklearn.metrics import r2_score, recall_score
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    labels = truth.astype(str) if classes else truth.astype(np.float64)
    ranks = np.zeros(len(truth)) if classes else _ranks(labels)
    answers, placed = labels.copy(), ranks.copy()
    for fold in range(FOLDS):
        held_out = fold_of == fold
        if held_out.all() or not held_out.any():
            return 0.0
        tree = (DecisionTreeClassifier if classes else DecisionTreeRegressor)(random_state=0)
        tree.fit(values[~held_out, None], labels[~held_out])
        answers[held_out] = tree.predict(values[held_out, None])
        distinct, positions = np.unique(values[~held_out], return_inverse=True)
        means = np.bincount(positions, weights=ranks[~held_out]) / np.bincount(positions)
        placed[held_out] = np.interp(values[held_out], distinct, means)
    if classes:
        return float(recall_score(labels, answers, average="macro")) if len(np.unique(labels)) > 1 else 0.0
    if not labels.std():
        return 0.0
    # Where one value stands very often, as 0 does, ranks are told by whether it is that: the others must be told, too.
    _, positions, counts = np.unique(labels, return_inverse=True, return_counts=True)
    others = positions != counts.argmax()
    by_rank = [r2_score(ranks[part], placed[part]) for part in (others, others | True) if ranks[part].std()]
    return float(max(r2_score(labels, answers), min(by_rank)))


def _are_numbers(values: npt.NDArray[np.generic]) -> bool:
    """Return whether the categories are numbers that are written as text."""
    import pandas as pd

    present = pd.Series(values).dropna()
    return bool(len(present)) and bool(pd.to_numeric(present, errors="coerce").notna().all())


def _numbers(values: npt.NDArray[np.generic]) -> Float64:
    """Return numbers as they are, also those written as text, and other categories as codes; NaN is missing."""
    import pandas as pd

    if values.dtype != object:
        return values.astype(np.float64)
    if _are_numbers(values):
        return np.asarray(pd.to_numeric(pd.Series(values)), dtype=np.float64)
    present = np.asarray([value is not None for value in values])
    codes = np.full(len(values), np.nan)
    codes[present] = np.unique(values[present].astype(str), return_inverse=True)[1]
    return codes
