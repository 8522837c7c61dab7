"""What the gate asks of a training on newer rows than the champion's: did the feed break, and what became of the past?

A new split version has candidate and champion judged on rows of the new time. If a broken feed made these rows, the
candidate that learnt what is broken wins on them, whoever asked for the training. The reference set that the champion
was judged on is still there, and shows it: the rows are compared with it, and if drift asked for the training, both
pairs answer it, too.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, ExperimentConfig
from mlplatform.datamodule import (
    REFERENCE,
    TRAIN,
    SplitError,
    create_data_module,
    own_rows,
    read_part,
)
from mlplatform.promotion.broken_columns import BrokenColumn, broken_columns, late_columns
from mlplatform.promotion.decision import Before, Retraining
from mlplatform.promotion.scoring import score_pair, shared_samples
from mlplatform.registry import Forecaster
from mlplatform.registry.pairs import PairInfo
from mlplatform.settings import Settings

# Tag of the MLflow run of a training that drift asked for: what had drifted.
DRIFT_CAUSE = "drift.cause"
# A feed is looked for to have fallen behind by this at most.
LONGEST_DELAY = dt.timedelta(weeks=1)


def look_back(
    config: ExperimentConfig,
    cause: str | None,
    champion: PairInfo,
    pairs: Mapping[str, Forecaster],
    reference: pd.DataFrame,
    champion_error: float | None,
    settings: Settings,
) -> tuple[tuple[str, ...], Retraining | None, list[str]]:
    """Return what a broken feed did to the rows since the champion, what is known of a drift retraining, and notes.

    Notes say what could not be found out.

    Parameters:
        config: of the candidate; its split version is the new one.
        cause: what had drifted; None if no drift asked for the training.
        pairs: `candidate` and `champion`.
        reference: rows of the new reference set.
        champion_error: the champion's mean error on it; None if it has none.

    Raises:
        SplitIntegrityError: if the old reference set was changed.
    """
    retraining = None if cause is None else Retraining(cause)
    old_version = champion.tags.get("split_version", config.split.version_id)
    if old_version == config.split.version_id:
        return (), retraining, []
    try:
        old = read_part(settings, config.dataset.name, old_version, REFERENCE)
    except SplitError as error:
        return (), retraining, [f"whether the feed broke since the champion is unknown: {error}"]
    spans = _spans(config, old, reference, settings)
    broken = tuple(
        f"{finding.evidence}, {where}" for where, rows in spans.items() for finding in _findings(config, old, rows)
    )
    if config.dataset.kind == "timeseries":
        broken += tuple(each.evidence for each in _late(config, old, spans))
    if retraining is None:
        return broken, None, []
    try:
        before = _before(config, old_version, old, pairs, champion_error)
    except ValueError as error:
        return broken, retraining, [f"how both do on the reference set of {old_version} is unknown: {error}"]
    return broken, replace(retraining, before=before), []


def _spans(
    config: ExperimentConfig, old: pd.DataFrame, reference: pd.DataFrame, settings: Settings
) -> dict[str, pd.DataFrame]:
    """Return where -> the rows that are new since the old reference set."""
    spans = {"in the new reference set": own_rows(reference)}
    if config.dataset.kind == "timeseries":
        train = read_part(settings, config.dataset.name, config.split.version_id, TRAIN)
        spans["in the training rows since then"] = own_rows(train[train[TIMESTAMP] > old[TIMESTAMP].max()])
    return spans


def _findings(config: ExperimentConfig, old: pd.DataFrame, new: pd.DataFrame) -> list[BrokenColumn]:
    return broken_columns(own_rows(old), new, _names(config, old, new))


def _late(config: ExperimentConfig, old: pd.DataFrame, spans: Mapping[str, pd.DataFrame]) -> list[BrokenColumn]:
    """Return the columns that fell behind in the rows of all spans: a feed may have done so where one ends.

    Reference sets may overlap; what stands in both is no row that comes again.
    """
    later = pd.concat(list(spans.values())).sort_values([ENTITY, TIMESTAMP], kind="stable")
    later = later[later[TIMESTAMP] > old[TIMESTAMP].max()]
    longest = max(round(LONGEST_DELAY / config.dataset.nominal_step), 1)
    return late_columns(own_rows(old), later, _names(config, old, later), longest)


def _names(config: ExperimentConfig, old: pd.DataFrame, new: pd.DataFrame) -> list[str]:
    """Return features and targets that both have."""
    names = dict.fromkeys((*config.features.columns, *config.targets))
    return [name for name in names if name in old and name in new]


def _before(
    config: ExperimentConfig,
    version_id: str,
    old: pd.DataFrame,
    pairs: Mapping[str, Forecaster],
    champion_error: float | None,
) -> Before | None:
    """Return both pairs on the old reference set; None if the champion has no error on the new one.

    Raises:
        ValueError: if a pair cannot answer it.
    """
    missing = [name for name in (*config.features.columns, *config.targets) if name not in old]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    if champion_error is None:
        return None
    module = shared_samples(create_data_module(config, old), [pair.contract.input_rows for pair in pairs.values()])
    candidate, champion = (score_pair(pairs[role], module, old) for role in ("candidate", "champion"))
    error = float(champion.errors.mean())
    growth = champion_error / error if error > 0 else 1.0
    return Before(
        version_id,
        candidate.scores[config.metric],
        champion.scores[config.metric],
        growth >= config.drift.error_ratio,
        growth,
    )
