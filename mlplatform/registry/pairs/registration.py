"""Registration: three versions under one number, committed by one last write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlplatform.registry.pairs.artifacts import Logged
from mlplatform.registry.pairs.info import PAIR_ID, ROLES, digest_tag, files_tag, partner_tag, registered_model
from mlplatform.registry.pairs.lock import Ticket
from mlplatform.registry.pairs.numbering import align, last_version, mark_incomplete
from mlplatform.registry.signing import SIGNATURE

if TYPE_CHECKING:
    from mlflow import MlflowClient

# The lock keeps other registrations away, but not someone who creates a version in MLflow's UI.
ATTEMPTS = 5
# MLflow keeps a tag of a version in a text column, which MySQL limits to 64 KiB.
FILES_LENGTH = 60_000


def create_pair(
    client: MlflowClient,
    ticket: Ticket,
    name: str,
    run_id: str,
    logged: Mapping[str, Logged],
    tags: Mapping[str, str],
    description: str,
    signature: str | None = None,
) -> int:
    """Create the three versions, commit them and return their number.

    Parameters:
        tags: of all three versions; `pair_id` among them is written last, by itself, as the commit point.
        description: shown at every version.
        signature: value of the tag `signature`, if the pair is signed.

    Raises:
        ValueError: if a role has too many files to keep a digest of each, or the three have too many to sign.
        RuntimeError: if others kept taking the next number.
    """
    shared = {**tags, **{digest_tag(role): logged[role].digest for role in ROLES}}
    del shared[PAIR_ID]
    # Whoever reads starts from the model's version, which alone names the files.
    files = {files_tag(role): _files_json(name, role, logged[role]) for role in ROLES}
    if signature is not None:
        files[SIGNATURE] = checked_signature(name, signature)
    for _ in range(ATTEMPTS):
        align(client, name)
        number = 1 + last_version(client, registered_model(name, "model"))
        numbered = {**shared, **{partner_tag(role): str(number) for role in ROLES}}
        for role in ROLES:
            ticket.keep()
            created = client.create_model_version(
                registered_model(name, role),
                logged[role].uri,
                run_id,
                tags={**numbered, **files} if role == "model" else {**numbered, PAIR_ID: tags[PAIR_ID]},
                description=description,
                model_id=logged[role].model_id,
            )
            if int(created.version) != number:
                mark_incomplete(client, registered_model(name, role), int(created.version))
                break
        else:
            ticket.keep()
            # The commit point.
            client.set_model_version_tag(registered_model(name, "model"), str(number), PAIR_ID, tags[PAIR_ID])
            return number
    raise RuntimeError(
        f"pair {name!r} could not be registered in {ATTEMPTS} attempts, because someone else kept creating versions of "
        "its models; run the registration again"
    )


def checked_signature(name: str, text: str) -> str:
    """Return the value of a tag `signature`; raises `ValueError` if it is too long for one."""
    if len(text) > FILES_LENGTH:
        raise ValueError(
            f"the pair of {name!r} has too many files to sign each: its signature has {len(text)} characters, and a "
            f"tag holds {FILES_LENGTH}; let the model family save its state in fewer files"
        )
    return text


def _files_json(name: str, role: str, logged: Logged) -> str:
    text = json.dumps(dict(logged.files), separators=(",", ":"))
    if len(text) > FILES_LENGTH:
        raise ValueError(
            f"the {role} of {name!r} has {len(logged.files)} files, too many to keep the digest of each; let the model "
            "family save its state in fewer files"
        )
    return text
