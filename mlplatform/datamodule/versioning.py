"""Split files under DVC: a repository without source control in the state folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import yaml

from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

# Usage reporting off for every command in this repository, ours or a person's.
CONFIG = "[core]\n    no_scm = True\n    analytics = false\n    autostage = false\n"


def track(settings: Settings, paths: Sequence[Path]) -> dict[str, str]:
    """Add files to the DVC repository at `settings.splits_dir` and return their DVC (MD5) hashes by file name.

    Files whose recorded hash is current are not added again.
    """
    stale = [path for path in paths if _recorded(path) != _md5(path)]
    if stale:
        from dvc.repo import Repo

        folder = settings.splits_dir / ".dvc"
        if not (folder / "config").exists():
            with atomic_file(folder / "config") as temporary:
                temporary.write_text(CONFIG)
        # DVC would keep its index under /var/tmp, where deleting the platform's home leaves it behind.
        own = {"core": {"site_cache_dir": str(folder / "site")}}
        with Repo(str(settings.splits_dir), config=own, _wait_for_lock=True) as repo:
            repo.add([str(path) for path in stale])
    return {path.name: _recorded(path) or "" for path in paths}


def _recorded(path: Path) -> str | None:
    pointer = path.with_name(f"{path.name}.dvc")
    if not pointer.exists():
        return None
    digest = yaml.safe_load(pointer.read_text())["outs"][0]["md5"]
    return str(digest)


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        # DVC's content address, not a safeguard: integrity is checked with SHA-256.
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
