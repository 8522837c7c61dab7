"""The versions that a training run may ask for, as Hydra overrides."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping

from mlplatform.config.base import ConfigError
from mlplatform.config.loading import load_experiment, options
from mlplatform.settings import Settings

VERSION_GROUPS = {"split_version": "split", "feature_version": "features", "model_version": "model"}


def apply_versions(name: str, versions: Mapping[str, str], settings: Settings | None = None) -> list[str]:
    """Return the Hydra overrides that select `versions` for the experiment `name`.

    Parameters:
        versions: any of `split_version`, `feature_version` and `model_version`.

    Raises:
        ConfigError: if a key or version is unknown, or the experiment does not allow the version.
    """
    settings = settings or Settings.from_env()
    default = load_experiment(name, settings=settings)
    overrides = []
    for key, version in versions.items():
        if key not in VERSION_GROUPS:
            raise ConfigError(f"unknown version key {key!r}; allowed: {', '.join(VERSION_GROUPS)}")
        group = VERSION_GROUPS[key]
        base, cut, as_of = version.partition("@")
        own = default.versions[key].partition("@")[0]
        allowed = (own, *getattr(default.allowed, group))
        # The experiment's own version may be written in its YAML rather than in a file of the group.
        if base != own:
            if base not in options(group, settings):
                raise ConfigError(f"{key} {version!r} is unknown; known: {', '.join(options(group, settings))}")
            if base not in allowed:
                wanted = ", ".join([*getattr(default.allowed, group), base])
                raise ConfigError(
                    f"{key} {version!r} is not allowed for {name!r}; allowed: {', '.join(allowed)}; to allow it, write "
                    f"`allowed: {{{group}: [{wanted}]}}` in the experiment's YAML"
                )
            overrides.append(f"{group}={base}")
        if cut:
            overrides.append(f"split.as_of={_parse_as_of(key, version, as_of)}")
    return overrides


def _parse_as_of(key: str, version: str, as_of: str) -> str:
    if key != "split_version" or not re.fullmatch(r"\d{8}T\d{4}", as_of):
        raise ConfigError(f"{key} {version!r}: only a split version takes a cut-off, written <version>@YYYYMMDDTHHMM")
    try:
        return f"'{dt.datetime.strptime(as_of, '%Y%m%dT%H%M').replace(tzinfo=dt.UTC).isoformat()}'"
    except ValueError as error:
        raise ConfigError(f"{key} {version!r}: {as_of!r} is not a date and time") from error
