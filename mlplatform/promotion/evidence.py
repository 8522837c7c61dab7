"""What the checks found about a registered pair, kept in the registry so that a later run can rely on it.

A blocking check holds only within its own Dagster run. What a check found about a pair is therefore kept as a tag of
the pair's version (or, for what was checked before there was a pair, of its MLflow run), and the promoter asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.config import ExperimentConfig
from mlplatform.registry.pairs import PROMOTION_GATE, Evidence, PairInfo, PairStore, tag_name
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

if TYPE_CHECKING:
    from mlflow.entities import Run

LEAKAGE, TOO_GOOD = "leakage", "too_good"


def keep_evidence(store: PairStore, info: PairInfo, check: str, evidence: Evidence) -> None:
    """Keep what a check found about a registered pair; a later result replaces it."""
    store.client.set_model_version_tag(f"{info.name}_model", str(info.version), tag_name(check), evidence.to_tag())


def find_evidence(store: PairStore, info: PairInfo, check: str, run: Run | None = None) -> Evidence | None:
    """Return what a check last found about a pair or its training run; None if it never looked.

    Parameters:
        run: the pair's training run, where it was fetched already.
    """
    tags = {
        **(run or store.client.get_run(info.run_id)).data.tags,
        **store.client.get_model_version(f"{info.name}_model", str(info.version)).tags,
    }
    text = tags.get(tag_name(check))
    return None if text is None else Evidence.from_tag(text)


def versions_decided_on(store: PairStore, candidate: PairInfo, sha256: str) -> set[int]:
    """Return the versions that the gate has decided on by a reference set, with the candidate.

    Parameters:
        sha256: of the reference set.
    """
    decisions = store.evidence(candidate.name, PROMOTION_GATE)
    return {number for number, each in decisions.items() if each.basis.get("reference set") == sha256} | {
        candidate.version
    }


def keep_finding(
    settings: Settings,
    config: ExperimentConfig,
    check: str,
    train_sha256: str,
    evidence: Evidence,
    folds: Sequence[str] = (),
) -> None:
    """Keep what a check found before there is a pair, for the training run that will use the same rows and folds.

    Parameters:
        train_sha256: hash of the training rows that were looked at.
        folds: those that were looked at, if the check is about folds.
    """
    document = {
        "fold_digest": config.fold_digest(),
        "train_sha256": train_sha256,
        "folds": list(folds),
        "evidence": evidence.to_tag(),
    }
    with atomic_file(_finding_path(settings, config, check)) as temporary:
        temporary.write_text(json.dumps(document, indent=1))


def find_finding(
    settings: Settings, config: ExperimentConfig, check: str, train_sha256: str, folds: Sequence[str] = ()
) -> Evidence | None:
    """Return what a check found about this configuration, these rows and all these folds; None if it never looked."""
    path = _finding_path(settings, config, check)
    if not path.exists():
        return None
    document = json.loads(path.read_text())
    expected = (config.fold_digest(), train_sha256)
    if (document["fold_digest"], document["train_sha256"]) != expected:
        return None
    if not set(folds) <= set(document["folds"]):
        return None
    return Evidence.from_tag(document["evidence"])


def _finding_path(settings: Settings, config: ExperimentConfig, check: str) -> Path:
    return settings.assets_dir / config.name / f"{check}.json"
