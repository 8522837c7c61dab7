"""Split files under DVC: a repository without source control in the state folder, pushed to a remote if there is one.

A file is known by its DVC hash (MD5). Every content that was ever tracked stays in DVC's cache and in the remote, so
the rows of an old training run can be had again after its training file was rebuilt.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

# Usage reporting off for every command in this repository, ours or a person's.
CONFIG = "[core]\n    no_scm = True\n    analytics = false\n    autostage = false\n"
REMOTE = "configured"


class VersioningError(RuntimeError):
    """Split files that cannot be sent to the remote, or cannot be had again."""


def track(settings: Settings, paths: Sequence[Path]) -> dict[str, str]:
    """Add files to the DVC repository at `settings.splits_dir` and return their DVC (MD5) hashes by file name.

    Files whose recorded hash is current are not added again.
    """
    stale = [path for path in paths if _recorded(path) != _md5(path)]
    if stale:
        folder = settings.splits_dir / ".dvc"
        if not (folder / "config").exists():
            with atomic_file(folder / "config") as temporary:
                temporary.write_text(CONFIG)
        with _repo(settings) as repo:
            repo.add([str(path) for path in stale])
    return {path.name: _recorded(path) or "" for path in paths}


def push(settings: Settings, hashes: Sequence[str]) -> int | None:
    """Send tracked contents to the remote `settings.dvc_remote`.

    Returns:
        How many the remote did not have yet; None if no remote is configured.

    Raises:
        VersioningError: if the remote does not take them.
    """
    if settings.dvc_remote is None:
        return None
    from dvc_data.hashfile.hash_info import HashInfo

    with _repo(settings) as repo, _explained(settings, "split files cannot be pushed to"):
        result = repo.cloud.push([HashInfo("md5", digest) for digest in hashes])
        if result.failed:
            raise OSError(f"{len(result.failed)} of {len(hashes)} files were not taken")
    return len(result.transferred)


def content(settings: Settings, digest: str) -> Path:
    """Return the path of a tracked content by its DVC hash: from the cache, or fetched from the remote.

    Raises:
        VersioningError: if neither has it.
    """
    if not (settings.splits_dir / ".dvc" / "config").exists():
        raise VersioningError(f"{settings.splits_dir} is no DVC repository; materialise the dataset's splits first")
    with _repo(settings) as repo:
        path = Path(repo.cache.local.oid_to_path(digest))
        if path.exists():
            return path
        if settings.dvc_remote is not None:
            from dvc_data.hashfile.hash_info import HashInfo

            with _explained(settings, "split files cannot be fetched from"):
                repo.cloud.pull([HashInfo("md5", digest)])
        if path.exists():
            return path
    where = "the DVC cache" if settings.dvc_remote is None else "the DVC cache and the remote"
    raise VersioningError(
        f"{where} of {settings.splits_dir} do not hold the content with the MD5 {digest}; set MLPLATFORM_DVC_REMOTE to "
        "a remote that has it"
    )


@contextlib.contextmanager
def _repo(settings: Settings) -> Iterator[Any]:
    """Open the repository for one command."""
    from dvc.repo import Repo

    # DVC would keep its index under /var/tmp, where deleting the platform's home leaves it behind.
    config: dict[str, Any] = {"core": {"site_cache_dir": str(settings.splits_dir / ".dvc" / "site")}}
    if settings.dvc_remote is not None:
        remote = settings.dvc_remote
        url = remote if "://" in remote else str(Path(remote).expanduser().resolve())
        config["core"]["remote"] = REMOTE
        config["remote"] = {REMOTE: {"url": url}}
    with Repo(str(settings.splits_dir), config=config, _wait_for_lock=True) as repo:
        yield repo


@contextlib.contextmanager
def _explained(settings: Settings, problem: str) -> Iterator[None]:
    """Name the remote in whatever goes wrong, without a password that its address may hold."""
    from dvc.exceptions import DvcException

    remote = _without_credentials(settings.dvc_remote or "")
    try:
        yield
    # An ImportError says which package the remote's kind needs.
    except (DvcException, OSError, ImportError, ValueError) as error:
        reason = str(error).replace(settings.dvc_remote or "", remote)
        raise VersioningError(f"{problem} {remote} (MLPLATFORM_DVC_REMOTE): {reason}") from None


def _without_credentials(address: str) -> str:
    return re.sub(r"://[^/@]*@", "://", address).partition("?")[0]


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
