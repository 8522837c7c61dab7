"""`active_config.yaml`: the versions of the last promoted training run, used by the next one as defaults."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mlplatform.config import VERSION_GROUPS, ConfigError, apply_versions
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

PAIR_VERSION = "pair_version"
VERSION = re.compile(r"[a-z][a-z0-9_]*(@\d{8}T\d{4})?")
ADVICE = "correct it, delete the file to go back to the defaults, or write it anew with the job repair"


def active_config_path(experiment: str, settings: Settings) -> Path:
    """Return the path of an experiment's active configuration."""
    return settings.active_config_dir / experiment / "active_config.yaml"


def read_active_versions(experiment: str, settings: Settings) -> dict[str, str]:
    """Return the active `split_version`, `feature_version` and `model_version`; empty before the first promotion.

    Raises:
        ConfigError: naming file and key, if the file is not what `write_active_config` wrote.
    """
    path = active_config_path(experiment, settings)
    if not path.exists():
        return {}
    document = _document(path)
    for key in VERSION_GROUPS:
        if key not in document:
            raise ConfigError(f"{path}: {key} is missing; {ADVICE}")
        if not isinstance(document[key], str) or not VERSION.fullmatch(document[key]):
            raise ConfigError(f"{path}: {key} is {document[key]!r}, expected the name of a version; {ADVICE}")
    return {key: document[key] for key in VERSION_GROUPS}


def version_overrides(experiment: str, requested: Mapping[str, str], settings: Settings) -> list[str]:
    """Return the Hydra overrides of a run that asks for some versions: the active ones of the others, then those.

    Raises:
        ConfigError: if a version is unknown or not allowed, or the active ones cannot be read.
    """
    asked = apply_versions(experiment, requested, settings)
    remembered = remembered_versions(experiment, requested, settings)
    try:
        return [*apply_versions(experiment, remembered, settings), *asked]
    except ConfigError as error:
        raise ConfigError(f"{active_config_path(experiment, settings)}: {error}; {ADVICE}") from error


def remembered_versions(experiment: str, requested: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return the active versions of what was not asked for; the file is not read where everything was."""
    if set(VERSION_GROUPS) <= set(requested):
        return {}
    active = read_active_versions(experiment, settings)
    return {key: version for key, version in active.items() if key not in requested}


def read_active_pair(experiment: str, settings: Settings) -> int | None:
    """Return the version of the pair that the active configuration was written for; None if it cannot be told."""
    path = active_config_path(experiment, settings)
    try:
        version = _document(path)[PAIR_VERSION]
    except (OSError, ConfigError, KeyError):
        return None
    return version if isinstance(version, int) else None


def write_active_config(experiment: str, versions: Mapping[str, str], pair_version: int, settings: Settings) -> Path:
    """Record the versions that the pair now in production was trained with.

    Parameters:
        versions: with `split_version`, `feature_version` and `model_version`; other keys are left out.
    """
    path = active_config_path(experiment, settings)
    document = {
        **{key: versions[key] for key in VERSION_GROUPS},
        PAIR_VERSION: pair_version,
        "promoted_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }
    with atomic_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def _document(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}; {ADVICE}") from error
    if not isinstance(document, dict):
        raise ConfigError(
            f"{path} must hold {', '.join(VERSION_GROUPS)}, but holds {type(document).__name__}; {ADVICE}"
        )
    return document
