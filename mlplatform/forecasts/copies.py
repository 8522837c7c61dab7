"""Copies of the table elsewhere: any folder or address that fsspec has a driver for.

Object stores have no rename that could swing a folder. A copy's files have names of their own, the file `_run.json`,
written last and in one piece, names those that count, and only then the files of the run before are deleted.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from mlplatform.forecasts.table import LEFT_OUT_FILE, RUN_FILE, chunk_files


def copy_table(folder: Path, experiment: str, target: str) -> str:
    """Copy the table of one origin to `<target>/<experiment>/origin=.../` and return that address.

    Credentials are the driver's own business, such as its environment variables.

    Raises:
        ValueError: if there is no fsspec driver for the address, or the driver lacks a package.
    """
    filesystem, root = _open(target)
    place = f"{root.rstrip('/')}/{experiment}/{folder.name}"
    filesystem.makedirs(place, exist_ok=True)
    before = [path for path in filesystem.ls(place, detail=False) if not path.endswith(f"/{RUN_FILE}")]
    run = uuid.uuid4().hex[:12]
    names = []
    for path in chunk_files(folder):
        names.append(f"{path.stem}-{run}.parquet")
        filesystem.put_file(str(path), f"{place}/{names[-1]}")
    left_out = f"{Path(LEFT_OUT_FILE).stem}-{run}.parquet"
    filesystem.put_file(str(folder.resolve() / LEFT_OUT_FILE), f"{place}/{left_out}")
    state = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    manifest = {**state, "files": names, "left_out_file": left_out}
    _write_whole(filesystem, f"{place}/{RUN_FILE}", json.dumps(manifest, indent=1, sort_keys=True))
    for path in before:
        filesystem.rm_file(path)
    return f"{target.rstrip('/')}/{experiment}/{folder.name}"


def _open(target: str) -> tuple[Any, str]:
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(target)
    except (ValueError, ImportError) as error:
        raise ValueError(f"forecasts.path {target!r} cannot be opened: {error}") from error
    return filesystem, str(root)


def _write_whole(filesystem: Any, path: str, text: str) -> None:
    """Write a file that readers find old or new: a put on an object store, a rename on a disk."""
    if "file" not in _protocols(filesystem):
        filesystem.pipe_file(path, text.encode())
        return
    temporary = f"{path}.{uuid.uuid4().hex}"
    filesystem.pipe_file(temporary, text.encode())
    Path(temporary).replace(path)


def _protocols(filesystem: Any) -> tuple[str, ...]:
    found = filesystem.protocol
    return (found,) if isinstance(found, str) else tuple(found)
