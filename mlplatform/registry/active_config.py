"""`active_config.yaml`: the versions of the last promoted training run, used by the next one as defaults."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path

import yaml

from mlplatform.config import VERSION_GROUPS, ConfigError
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file


def active_config_path(experiment: str, settings: Settings) -> Path:
    """Return the path of an experiment's active configuration."""
    return settings.active_config_dir / experiment / "active_config.yaml"


def read_active_versions(experiment: str, settings: Settings) -> dict[str, str]:
    """Return the active `split_version`, `feature_version` and `model_version`; empty before the first promotion.

    Raises:
        ConfigError: if the file is not what `write_active_config` wrote.
    """
    path = active_config_path(experiment, settings)
    if not path.exists():
        return {}
    document = yaml.safe_load(path.read_text())
    if not isinstance(document, dict) or not set(VERSION_GROUPS) <= set(document):
        raise ConfigError(f"{path} must hold {', '.join(VERSION_GROUPS)}; delete it to go back to the defaults")
    return {key: str(document[key]) for key in VERSION_GROUPS}


def write_active_config(experiment: str, versions: Mapping[str, str], pair_version: int, settings: Settings) -> Path:
    """Record the versions that the pair now in production was trained with.

    Parameters:
        versions: with `split_version`, `feature_version` and `model_version`; other keys are left out.
    """
    path = active_config_path(experiment, settings)
    document = {
        **{key: versions[key] for key in VERSION_GROUPS},
        "pair_version": pair_version,
        "promoted_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }
    with atomic_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
