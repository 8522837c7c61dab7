"""What the checks found about a registered pair, kept in the registry so that a later run can rely on it.

A blocking check holds only within its own Dagster run. What a check found about a pair is therefore kept as a tag of
the pair's version (or, for what was checked before there was a pair, of its MLflow run), and the promoter asks for it.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mlplatform.config import ExperimentConfig
from mlplatform.registry.pairs import PairInfo, PairStore
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

LEAKAGE, PAIR_INTEGRITY, SERVING_PARITY = "leakage", "pair_integrity", "serving_parity"
PROMOTION_GATE, TOO_GOOD = "promotion_gate", "too_good"
TAG_PREFIX = "check."
SUMMARY_LENGTH = 500


@dataclass(frozen=True)
class Evidence:
    """The result of one check.

    Attributes:
        summary: one sentence for people.
        basis: what the result holds for; the result is stale once any of these is different.
        at: when it was found, ISO 8601.
    """

    passed: bool
    summary: str
    basis: Mapping[str, str] = field(default_factory=dict)
    at: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))

    def to_tag(self) -> str:
        """Return the value of the tag that keeps it."""
        return json.dumps({**asdict(self), "summary": self.summary[:SUMMARY_LENGTH]}, sort_keys=True)

    @classmethod
    def from_tag(cls, text: str) -> Evidence:
        """Read what `to_tag` wrote."""
        return cls(**json.loads(text))

    def changed(self, basis: Mapping[str, str]) -> list[str]:
        """Return the names of what is different now."""
        return sorted(key for key in {*basis, *self.basis} if basis.get(key) != self.basis.get(key))


def tag_name(check: str) -> str:
    """Return the name of the tag that keeps a check's result."""
    return TAG_PREFIX + check


def keep_evidence(store: PairStore, info: PairInfo, check: str, evidence: Evidence) -> None:
    """Keep what a check found about a registered pair; a later result replaces it."""
    store.client.set_model_version_tag(f"{info.name}_model", str(info.version), tag_name(check), evidence.to_tag())


def find_evidence(store: PairStore, info: PairInfo, check: str) -> Evidence | None:
    """Return what a check last found about a pair or its training run; None if it never looked."""
    tags = {
        **store.client.get_run(info.run_id).data.tags,
        **store.client.get_model_version(f"{info.name}_model", str(info.version)).tags,
    }
    text = tags.get(tag_name(check))
    return None if text is None else Evidence.from_tag(text)


def keep_leakage(
    settings: Settings, config: ExperimentConfig, train_sha256: str, folds: Sequence[str], evidence: Evidence
) -> None:
    """Keep what the leakage check found about folds, for the training run that will use them.

    Parameters:
        train_sha256: hash of the training rows the folds were cut from.
    """
    document = {
        "fold_digest": config.fold_digest(),
        "train_sha256": train_sha256,
        "folds": list(folds),
        "evidence": evidence.to_tag(),
    }
    with atomic_file(_leakage_path(settings, config)) as temporary:
        temporary.write_text(json.dumps(document, indent=1))


def find_leakage(settings: Settings, config: ExperimentConfig, train_sha256: str) -> Evidence | None:
    """Return what the leakage check found about all folds of this configuration and these rows, if it looked."""
    path = _leakage_path(settings, config)
    if not path.exists():
        return None
    document = json.loads(path.read_text())
    expected = (config.fold_digest(), train_sha256)
    if (document["fold_digest"], document["train_sha256"]) != expected:
        return None
    if not set(config.split.fold_names) <= set(document["folds"]):
        return None
    return Evidence.from_tag(document["evidence"])


def _leakage_path(settings: Settings, config: ExperimentConfig) -> Path:
    return settings.assets_dir / config.name / "leakage.json"
