"""Columns that are too good to be true: one that is the target in disguise, and known when the answer is asked for.

A copy of the target, its lead and a centred mean of it train without any error and score better than anything honest
could. What gives them away is that, on the training rows, one column settles what the target's own past leaves open.
An honest column may do so, too (a plan that is always kept): whether it is, only a person can say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
    without what is known of the column; of a category that is the mean of the target at its other rows. Of a table
    every input is judged alone, by the cross-validated answers of a decision tree. Too few rows to judge by give no
    finding.
    """
    judged = _forecast(module) if module.config.task == "forecast" else _table(module)
    return [finding for finding in judged if finding.share >= LIMIT]


def _forecast(module: DataModule) -> Iterator[TooGood]:
    config, panel = module.config, module.panel
    for target in config.targets:
        for name in config.features.columns:
            if name == target or name in config.features.static:
                continue
            column = panel.columns[name]
            if column.dtype == object:
                column = _means_by_kind(column, panel.columns[target])
            known = name in config.features.known_future
            found = [
                finding
                for ahead in range(1, config.horizon + 1, min(config.lookback, LAGS))
                if (finding := _ahead(module, target, name, column.astype(np.float64), ahead, known)) is not None
            ]
            if found:
                yield max(found, key=lambda finding: finding.share)


def _means_by_kind(kinds: npt.NDArray[np.generic], truth: npt.NDArray[np.generic]) -> Float64:
    """Return for every row the mean of the target where the category is the same, of shape (rows,).

    It is taken from stretches of rows other than the row's own, so that a category that stands once says nothing (NaN).
    """
    codes, values = _numbers(kinds), truth.astype(np.float64)
    rows = np.arange(len(codes))
    means = np.full(len(codes), np.nan)
    known = np.isfinite(codes) & np.isfinite(values)
    size = int(np.nanmax(codes, initial=-1)) + 1
    for part in range(PARTS):
        own = rows // STRETCH % PARTS == part
        others = known & ~own
        counted = np.bincount(codes[others].astype(np.int64), minlength=size)
        summed = np.bincount(codes[others].astype(np.int64), weights=values[others], minlength=size)
        table = np.divide(summed, counted, out=np.full(size, np.nan), where=counted > 0)
        here = own & np.isfinite(codes)
        means[here] = table[codes[here].astype(np.int64)]
    return means


def _ahead(module: DataModule, target: str, name: str, column: Float64, ahead: int, known: bool) -> TooGood | None:
    """Judge a column by the target `ahead` steps after the origin."""
    config = module.config
    truth = module.panel.columns[target].astype(np.float64)
    origins = module.rows[:: max(1, len(module.rows) // ROWS)]
    lags = min(config.lookback, LAGS)
    while lags:
        past = np.arange(1 - lags, 1)
        seen = np.union1d(past, np.arange(ahead - lags, min(ahead + lags, config.horizon) + 1)) if known else past
        # Before the lookback of the first origin there may be another entity.
        seen = seen[seen > -config.lookback]
        y, own, others = truth[origins + ahead], _around(truth, origins, past), _around(column, origins, seen)
        whole = np.isfinite(y) & np.isfinite(own).all(axis=1) & np.isfinite(others).all(axis=1)
        if whole.sum() >= max(LEAST_ROWS, ROWS_PER_COEFFICIENT * (len(past) + len(seen) + 1)):
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
    centred = inputs - inputs.mean(axis=0)
    spread = centred.std(axis=0)
    design = np.column_stack([np.ones(len(y)), centred / np.where(spread > 0, spread, 1)])
    coefficients, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
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
        share = _alone(values[present], truth, deal(identities, 3, 0), config.task == "classification")
        what = "mean share of right answers over the classes" if config.task == "classification" else "R²"
        evidence = f"column {name!r} alone tells {target!r}: {what} {share:.2%}, cross-validated on {len(chosen)} rows"
        yield TooGood(name, target, share, evidence)


def _alone(values: Float64, truth: npt.NDArray[np.generic], fold_of: Int64, classes: bool) -> float:
    """Return how well a tree answers from one column: balanced accuracy for classes, else R²."""
    from sklearn.metrics import r2_score, recall_score
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    labels = truth.astype(str) if classes else truth.astype(np.float64)
    answers = labels.copy()
    for fold in range(3):
        held_out = fold_of == fold
        if held_out.all() or not held_out.any():
            return 0.0
        tree = (DecisionTreeClassifier if classes else DecisionTreeRegressor)(random_state=0)
        tree.fit(values[~held_out, None], labels[~held_out])
        answers[held_out] = tree.predict(values[held_out, None])
    if classes:
        return float(recall_score(labels, answers, average="macro")) if len(np.unique(labels)) > 1 else 0.0
    return float(r2_score(labels, answers)) if labels.std() else 0.0


def _numbers(values: npt.NDArray[np.generic]) -> Float64:
    """Return numbers as they are and categories as codes; NaN is missing."""
    if values.dtype != object:
        return values.astype(np.float64)
    present = np.asarray([value is not None for value in values])
    codes = np.full(len(values), np.nan)
    codes[present] = np.unique(values[present].astype(str), return_inverse=True)[1]
    return codes
