"""Content digests of artifact folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

DIGESTS, DIGESTS_FILE = "digests", "sha256.json"


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
    someone who changes a folder and its digest alike.

    Parameters:
        artifacts: the pyfunc's artifacts by name, with the folder `digests` among them.

    Raises:
        ValueError: if a file was changed, added or removed.
    """
    folder = Path(artifacts[name])
    expected = json.loads((Path(artifacts[DIGESTS]) / DIGESTS_FILE).read_text())[name]
    found = folder_digest(folder)
    if found != expected:
        raise ValueError(f"{folder} has SHA-256 {found} instead of {expected}: it was changed after it was stored")
    return folder


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
