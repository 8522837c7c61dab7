"""Where experiments stand: their pairs, what the gate said, what drifted, and what the retrain policy decided."""

from __future__ import annotations

import json
from typing import Any

from mlplatform.monitoring import read_report
from mlplatform.monitoring.retraining import Journal
from mlplatform.registry.pairs import PREVIOUS, PRODUCTION, PROMOTION_GATE, STAGING, PairStore
from mlplatform.settings import Settings, sqlite_file

# Newest versions that are listed of an experiment.
LISTED = 20
_SUFFIX, _GATE = "_model", f"check.{PROMOTION_GATE}"


def overview(settings: Settings) -> list[dict[str, Any]]:
    """Return where every experiment stands of which something was registered, by name."""
    database = sqlite_file(settings.mlflow_tracking_uri)
    if database is not None and not database.exists():
        return []
    store = PairStore(settings)
    return [_experiment(name, store, settings) for name in sorted(_registered(store))]


def _registered(store: PairStore) -> list[str]:
    names: list[str] = []
    token = None
    while True:
        page = store.client.search_registered_models(max_results=200, page_token=token)
        names += [model.name.removesuffix(_SUFFIX) for model in page if model.name.endswith(_SUFFIX)]
        token = page.token
        if not token:
            return names


def _experiment(name: str, store: PairStore, settings: Settings) -> dict[str, Any]:
    aliases: dict[int, list[str]] = {}
    for alias in (PRODUCTION, PREVIOUS, STAGING):
        pair = store.find(name, alias)
        if pair is not None:
            aliases.setdefault(pair.version, []).append(alias)
    in_production = [version for version, names in aliases.items() if PRODUCTION in names]
    last = Journal(settings, name).last()
    return {
        "experiment": name,
        "production": in_production[0] if in_production else None,
        "versions": [_version(name, each, aliases, store) for each in store.versions(name)[:LISTED]],
        "drift": _drift(name, settings),
        "retraining": None if last is None else {"at": last.at.isoformat(), **vars(last.decision)},
    }


def _version(name: str, version: int, aliases: dict[int, list[str]], store: PairStore) -> dict[str, Any]:
    pair = store.find(name, version)
    tag = pair.tags.get(_GATE) if pair else None
    gate = json.loads(tag) if tag else {}
    return {
        "version": version,
        "aliases": sorted(aliases.get(version, [])),
        "gate": gate.get("summary"),
        "gate_passed": gate.get("passed"),
    }


def _drift(name: str, settings: Settings) -> dict[str, Any] | None:
    report = read_report(settings, name)
    if report is None:
        return None
    return {
        "day": report.about,
        "pair_version": report.pair_version,
        "data_until": report.data_until,
        "causes": list(report.causes),
        "broken": list(dict.fromkeys(each.name for each in report.quality)),
        "live_error": report.errors.recent,
        "reference_error": report.errors.reference,
    }
