"""Content digests of artifact folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from mlplatform.registry.signing import SIGNATURE, SignatureError, bundle_of, verified_digests
from mlplatform.registry.tracking import client_for
from mlplatform.settings import VERIFY_KEY, Settings

DIGESTS, DIGESTS_FILE = "digests", "sha256.json"
# MLflow adds this file to a stored model when someone loads it by its registered name. Nothing here reads it.
FROM_MLFLOW = frozenset({"registered_model_meta"})


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder by its relative path, in sorted order."""
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 over the relative paths and contents of all files in a folder, in sorted order."""
    return combined_digest(file_digests(folder))


def combined_digest(digests: Mapping[str, str]) -> str:
    """Return the SHA-256 over names and digests, in the order given."""
    digest = hashlib.sha256()
    for name, value in digests.items():
        digest.update(f"{name}\0{value}\n".encode())
    return digest.hexdigest()


def write_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Write digests into a new folder, for `checked_folder`."""
    folder.mkdir()
    (folder / DIGESTS_FILE).write_text(json.dumps(dict(digests), indent=1))


def checked_folder(artifacts: Mapping[str, str], name: str) -> Path:
    """Return a folder of a registered pyfunc after checking that it holds what was stored in it.

    This is the check of MLflow's own loading, which knows nothing of the digests in the registry: it finds damage, not
    someone who changes a folder and its digest alike. With keys to verify (`Settings.verify_keys`) it finds that, too:
    then the registry has to hold a signature over all files of the model. MLflow has run the model's code by now.

    Parameters:
        artifacts: the pyfunc's artifacts by name, with the folder `digests` among them.

    Raises:
        ValueError: if a file was changed, added or removed, or no signature that is needed covers the files.
    """
    folder = Path(artifacts[name])
    settings = Settings.from_env()
    if settings.verify_keys:
        _require_signed(folder.parent.parent, settings)
    expected = json.loads((Path(artifacts[DIGESTS]) / DIGESTS_FILE).read_text())[name]
    found = folder_digest(folder)
    if found != expected:
        raise ValueError(f"{folder} has SHA-256 {found} instead of {expected}: it was changed after it was stored")
    return folder


def _require_signed(model: Path, settings: Settings) -> None:
    """Refuse a stored model whose files are not, all together, those of one role of a signed pair.

    Parameters:
        model: the folder of the whole model, as MLflow reads it.
    """
    import yaml

    found = {path: value for path, value in file_digests(model).items() if path not in FROM_MLFLOW}
    run_id = str(yaml.safe_load((model / "MLmodel").read_text()).get("run_id"))
    reasons = []
    for version in client_for(settings).search_model_versions(f"run_id = '{run_id}'"):
        if SIGNATURE not in version.tags:
            continue
        try:
            signed = verified_digests(bundle_of(version.tags[SIGNATURE]), settings.verify_keys).digests
        except SignatureError as error:
            reasons.append(f"version {version.version} of {version.name} {error}")
            continue
        roles = {name.partition("/")[0] for name in signed}
        if any(found == _below(signed, role) for role in roles):
            return
        reasons.append(f"version {version.version} of {version.name} was signed with other files")
    why = "; ".join(reasons) or f"MLflow run {run_id} registered no signed pair"
    raise SignatureError(
        f"{model} cannot be loaded: {VERIFY_KEY} asks for signatures, and no signed pair has its files ({why}). Sign "
        "the pair if you know where it comes from, or load it in a process without that variable"
    )


def _below(digests: Mapping[str, str], role: str) -> dict[str, str]:
    return {name.removeprefix(f"{role}/"): value for name, value in digests.items() if name.startswith(f"{role}/")}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
