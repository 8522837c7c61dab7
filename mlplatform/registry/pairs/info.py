"""What a registered pair is: its names, its description as readers get it, and the errors of the registry."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mlplatform.registry.forecaster import Contract

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

STAGING, PRODUCTION, PREVIOUS = "staging", "production", "previous"
LATEST = "latest"
# In the order in which a registration creates their versions: the model's comes last.
ROLES = ("preprocessor", "forecaster", "model")
PAIR_ID, INCOMPLETE = "pair_id", "incomplete"


class PairNotFoundError(LookupError):
    """No such pair, version or alias."""


class PairIntegrityError(RuntimeError):
    """A registered pair whose parts do not belong together or were changed."""


class PairUnreadableError(PairIntegrityError):
    """A registered pair whose parts cannot be read now; nothing says that they were changed."""


class PairConflictError(RuntimeError):
    """Another writer changed the registry between a decision and its execution."""


@dataclass(frozen=True)
class PairInfo:
    """A registered pair.

    Attributes:
        name: stem of the registered models' names.
        version: the version number the three models share.
        pair_id: unique id of this pair.
        run_id: MLflow run that trained it.
        digests: per role, SHA-256 over the artifacts a reader deserialises; equal bits give equal digests.
        tags: all tags of the version of `<name>_model`.
        promoted_at: when the pair last became the production pair, if it did.
    """

    name: str
    version: int
    pair_id: str
    run_id: str
    contract: Contract
    digests: Mapping[str, str]
    created_at: dt.datetime
    tags: Mapping[str, str]
    promoted_at: dt.datetime | None = None

    @property
    def preprocessor_digest(self) -> str:
        """SHA-256 of the preprocessor's artifacts."""
        return self.digests["preprocessor"]

    @property
    def model_digest(self) -> str:
        """SHA-256 of the model's artifacts."""
        return self.digests["model"]

    @cached_property
    def files(self) -> Mapping[str, Mapping[str, str]]:
        """Per role, SHA-256 of every stored file by its path inside the registered model."""
        return {role: json.loads(self.tags[files_tag(role)]) for role in ROLES}

    def to_json(self) -> str:
        """Return everything as JSON, for `from_json`."""
        values = {
            **asdict(self),
            "contract": self.contract.to_json(),
            "created_at": self.created_at.isoformat(),
            "promoted_at": self.promoted_at.isoformat() if self.promoted_at else None,
        }
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> PairInfo:
        """Rebuild a description from JSON."""
        values = json.loads(text)
        values["contract"] = Contract.from_json(values["contract"])
        for name in ("created_at", "promoted_at"):
            values[name] = dt.datetime.fromisoformat(values[name]) if values[name] else None
        return cls(**values)

    @classmethod
    def of_version(cls, name: str, version: ModelVersion, promoted_at: dt.datetime | None = None) -> PairInfo:
        """Return the pair that a complete version of `<name>_model` stands for."""
        tags = dict(version.tags)
        return cls(
            name=name,
            version=int(version.version),
            pair_id=tags[PAIR_ID],
            run_id=version.run_id or "",
            contract=Contract.from_json(tags["contract"]),
            digests={role: tags[digest_tag(role)] for role in ROLES},
            created_at=dt.datetime.fromtimestamp(version.creation_timestamp / 1000, dt.UTC),
            tags=tags,
            promoted_at=promoted_at,
        )


def registered_model(name: str, role: str) -> str:
    """Return the name of one of a pair's three registered models."""
    return f"{name}_{role}"


def digest_tag(role: str) -> str:
    """Return the tag that holds the digest of a role's artifacts."""
    return f"{role}_digest"


def files_tag(role: str) -> str:
    """Return the tag of the model's version that holds the digests of all files of a role, as JSON."""
    return f"files.{role}"


def partner_tag(role: str) -> str:
    """Return the tag that holds the version number of a role in the same pair."""
    return f"partner.{role}"


def is_complete(version: ModelVersion) -> bool:
    """Return whether a version was committed and not marked as a leftover."""
    return PAIR_ID in version.tags and version.tags.get(INCOMPLETE) != "true"
