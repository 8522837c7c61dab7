"""What the data of a dataset said about its frequency, where the configuration leaves that to them (`auto`).

Written by the first ingest, beside the raw table; read wherever steps are counted.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

from mlplatform.config.base import Frozen
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

AUTO = "auto"


class FoundFrequency(Frozen):
    """A frequency that was read off times.

    Attributes:
        frequency: as the configuration could have it.
        share: of the times on its grid.
        times: number of times that were looked at.
    """

    frequency: str
    share: float
    times: int


def read_found(dataset: str, settings: Settings | None = None) -> FoundFrequency | None:
    """Return what was found; `None` before the first ingest."""
    path = _path(dataset, settings or Settings.from_env())
    try:
        return _read(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


def write_found(dataset: str, found: FoundFrequency, settings: Settings) -> None:
    """Keep what was found, in the place of what was found before."""
    path = _path(dataset, settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(found.model_dump(), indent=1))


@functools.lru_cache(maxsize=64)
def _read(path: Path, changed_ns: int) -> FoundFrequency:  # noqa: ARG001 (a file that changed is read anew)
    return FoundFrequency.model_validate_json(path.read_text())


def _path(dataset: str, settings: Settings) -> Path:
    return settings.raw_dir / f"{dataset}.frequency.json"
