"""Whether a source has something that its raw table was not made from.

Every ingest that ends well notes the source's fingerprint, taken before it read, beside the table. So an ingest that
failed, or was killed, leaves its news as news.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mlplatform.config import DatasetConfig
from mlplatform.data.errors import DataError
from mlplatform.data.raw_table import open_raw, raw_link
from mlplatform.data.sources import Source, open_source, source_identity
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file


def source_news(dataset: DatasetConfig, settings: Settings) -> str | None:
    """Return the fingerprint of what the raw table of a dataset was not made from; `None` without any.

    A source that cannot tell cheaply has no news.

    Raises:
        ConfigError, DataError: if the source cannot be used, or is not there.
    """
    now = open_source(dataset).fingerprint(dataset, settings)
    if now is None:
        return None
    is_known = open_raw(dataset, settings) is not None and _noted(dataset, settings) == _digest(dataset, now)
    return None if is_known else now


def take_fingerprint(source: Source[Any], dataset: DatasetConfig, settings: Settings) -> str | None:
    """Return a source's fingerprint, `None` if there is none; whether the source can be read, reading it will tell."""
    try:
        return source.fingerprint(dataset, settings)
    except DataError:
        return None


def note_fingerprint(fingerprint: str | None, dataset: DatasetConfig, settings: Settings) -> None:
    """Keep what the source was when its table was last brought up to date. The caller holds the table's lock."""
    if fingerprint is None:
        return
    digest = _digest(dataset, fingerprint)
    if _noted(dataset, settings) != digest:
        with atomic_file(_path(dataset, settings)) as temporary:
            temporary.write_text(json.dumps({"source": digest}))


def _path(dataset: DatasetConfig, settings: Settings) -> Path:
    link = raw_link(dataset, settings)
    return link.parent / f"{link.name}.source.json"


def _noted(dataset: DatasetConfig, settings: Settings) -> str | None:
    try:
        values = json.loads(_path(dataset, settings).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return values.get("source") if isinstance(values, dict) else None


def _digest(dataset: DatasetConfig, fingerprint: str) -> str:
    """Return a digest of what is read and of its state; options may hold what does not belong into a file."""
    text = json.dumps([source_identity(dataset), fingerprint], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
