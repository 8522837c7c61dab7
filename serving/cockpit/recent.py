"""Which entities the feature store holds, what it holds of their recent past, and what monitoring says of the model."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from mlplatform.config import ExperimentConfig, StalenessConfig, load_experiment
from mlplatform.features import FeatureStoreError
from mlplatform.features.online import materialized_entities
from mlplatform.features.retrieval import FeatureStoreFacade
from mlplatform.monitoring import followed_forecasts, newest_moment, read_report, summarise_errors
from mlplatform.registry import Contract
from mlplatform.settings import Settings
from serving.backend import EntityId
from serving.inference import store_errors

# What is shown of a version, as `summarise_errors` calls it.
LIVE = ("version", "count", "error", "covered", "coverage", "naive_error", "error_beside_naive")


def _config(contract: Contract, settings: Settings) -> ExperimentConfig:
    """Return the configuration as it was at most a minute ago: composing it takes longer than all that is read."""
    return _config_at(contract.experiment, settings, int(time.monotonic() // 60))


@lru_cache(maxsize=64)
def _config_at(experiment: str, settings: Settings, _minute: int) -> ExperimentConfig:
    return load_experiment(experiment, settings=settings)


def entity_of(text: str) -> EntityId:
    """Return the id that a query parameter holds, written as in JSON; what is no JSON is text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)) else text


def read_entities(contract: Contract, first: Sequence[EntityId], most: int, settings: Settings) -> dict[str, Any]:
    """Return up to `most` ids that the feature store was filled with, and how many more there are.

    Parameters:
        first: ids that come first where the store has them, and all that is named where it does not tell.
    """
    dataset = _config(contract, settings).dataset
    try:
        found = materialized_entities(dataset, settings)
    except FeatureStoreError:
        found = None
    if found is None:
        return {"entities": list(first), "more": None}
    known = found.tolist()
    held = set(known)
    ids = list(dict.fromkeys([*(entity for entity in first if entity in held), *known]))
    return {"entities": ids[:most], "more": max(0, len(ids) - most)}


def read_recent(contract: Contract, entity: EntityId, steps: int, settings: Settings) -> dict[str, Any]:
    """Return the newest stored values of the targets of one entity, `null` where nothing was measured.

    Raises:
        ServingError: as `serving.inference.read_panel` does.
    """
    dataset = _config(contract, settings).dataset
    with store_errors(dataset):
        # However old they are, they are the past.
        store = FeatureStoreFacade(dataset, "online", settings, staleness=StalenessConfig(max_age=None))
        panel = store.load_features("now", [entity], contract.targets, steps=min(steps, dataset.window_steps))
    times = pd.DatetimeIndex(panel.timestamps.astype("datetime64[s]"), tz="UTC")
    return {
        "entity": entity,
        "timestamps": [moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in times],
        "values": {
            name: [None if pd.isna(value) else _shortest(value) for value in values]
            for name, values in panel.columns.items()
        },
    }


def read_live(contract: Contract, settings: Settings) -> dict[str, Any] | None:
    """Return errors and coverage of every version in the newest steps that came true; `None` where none is known.

    The steps are as many as a drift report looks at.
    """
    config = _config(contract, settings)
    until = newest_moment(config, settings) if contract.task == "forecast" else pd.Timestamp.now("UTC")
    if until is None:
        return None
    since = until - config.drift.recent_steps * pd.Timedelta(seconds=contract.step_seconds or 3600)
    found = summarise_errors(config, settings, ("version",), since, until).astype(object)
    found = found.where(found.notna(), None)
    versions = found[list(LIVE)].to_dict("records")
    return {"since": since.isoformat(), "until": until.isoformat(), "versions": versions} if versions else None


def read_followed(
    contract: Contract, version: int, entity: EntityId, steps: int, settings: Settings
) -> dict[str, Any] | None:
    """Return what a version forecast of an entity's newest steps, beside the truth; `None` where none is known."""
    config = _config(contract, settings)
    until = newest_moment(config, settings)
    if until is None:
        return None
    since = until - steps * pd.Timedelta(seconds=contract.step_seconds)
    found = followed_forecasts(config, settings, version, str(entity), since)
    if found.empty:
        return None
    targets = {}
    for target, rows in found.groupby("target"):
        values = rows[["value", "lower", "upper", "truth"]].astype(object)
        shown = values.where(values.notna(), None).to_dict("list")
        targets[str(target)] = {"timestamps": rows["moment"].dt.strftime("%Y-%m-%dT%H:%M:%SZ").tolist(), **shown}
    return {"entity": entity, "version": version, "targets": targets}


def _shortest(value: Any) -> float | str:
    """Return a 32-bit number with no more digits than it has."""
    return float(str(value)) if isinstance(value, np.floating) else str(value)


def read_drift(experiment: str, settings: Settings) -> dict[str, Any] | None:
    """Return what the newest drift report says; `None` without one, or where the server does not see it."""
    report = read_report(settings, experiment)
    if report is None:
        return None
    return {
        "pair_version": report.pair_version,
        "data_until": report.data_until,
        "broken": [each.name for each in report.quality],
        "drifted": list(report.causes),
        "suspected": list(report.suspects),
        "live_error": report.errors.recent,
        "reference_error": report.errors.reference,
    }
