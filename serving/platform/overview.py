"""Where experiments stand: their pairs, what the gate said, what drifted, and what the retrain policy decided."""

from __future__ import annotations

from typing import Any

from mlplatform.monitoring import read_report
from mlplatform.monitoring.retraining import Journal
from mlplatform.registry.pairs import PREVIOUS, PRODUCTION, PROMOTION_GATE, STAGING, Evidence, PairStore
from mlplatform.settings import Settings

# Newest versions that are listed of an experiment.
LISTED = 20


def overview(settings: Settings) -> list[dict[str, Any]]:
    """Return where every experiment stands of which something was registered, by name.

    Raises:
        RegistryAwayError: if a tracking server does not answer.
    """
    store = PairStore.of_existing(settings)
    return [_experiment(name, store, settings) for name in store.names()]


def _experiment(name: str, store: PairStore, settings: Settings) -> dict[str, Any]:
    stands, gates = store.alias_versions(name), store.evidence(name, PROMOTION_GATE)
    aliases: dict[int, list[str]] = {}
    for alias in sorted({PRODUCTION, PREVIOUS, STAGING} & set(stands)):
        aliases.setdefault(stands[alias], []).append(alias)
    last = Journal(settings, name).last()
    return {
        "experiment": name,
        "production": stands.get(PRODUCTION),
        "versions": [_version(each, aliases.get(each, []), gates.get(each)) for each in store.versions(name)[:LISTED]],
        "drift": _drift(name, settings),
        "retraining": None if last is None else {"at": last.at.isoformat(), **vars(last.decision)},
    }


def _version(version: int, aliases: list[str], gate: Evidence | None) -> dict[str, Any]:
    return {
        "version": version,
        "aliases": aliases,
        "gate": gate.summary if gate else None,
        "gate_passed": gate.passed if gate else None,
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
