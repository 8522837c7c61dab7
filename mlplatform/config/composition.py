"""Composition of Hydra's YAML groups into plain values, remembered until a YAML file changes.

Dagster imports the code location at every command, spawned step and sensor tick. Composing takes Hydra most of a tenth
of a second per experiment, so the values are kept under `MLPLATFORM_HOME` and used again as long as no configuration
file has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Sequence
from typing import Any

from mlplatform.config.base import ConfigError
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

ROOT_CONFIG = "mlplatform_root"
# Groups whose options are versions: named by their files, and recorded with every model.
VERSIONED_GROUPS = ("split", "features", "model")
# Hydra has one state for the whole process, and a server reads several experiments at once.
_hydra = threading.Lock()


def compose(experiment: str, overrides: Sequence[str], settings: Settings, state: str | None = None) -> dict[str, Any]:
    """Return the composed values of an experiment.

    Parameters:
        state: of the files, as `state_of_files` returned it, for a caller that composes many experiments at once.

    Raises:
        ConfigError: if the groups or overrides do not compose.
    """
    digest = hashlib.sha256(f"{json.dumps([experiment, *overrides])}{state or state_of_files(settings)}".encode())
    cached = settings.home / "cache" / "config" / f"{experiment}-{digest.hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError):
        remembered: dict[str, Any] = json.loads(cached.read_text())
        return remembered
    with _hydra:
        text, reads_environment = _compose(experiment, overrides, settings)
    # What came from the environment may be a secret, and may be different next time.
    if not reads_environment:
        # A home that cannot be written to must not keep configuration from being read.
        with contextlib.suppress(OSError), atomic_file(cached) as temporary:
            temporary.write_text(text)
    composed: dict[str, Any] = json.loads(text)
    return composed


def require_folders(settings: Settings) -> None:
    """Check that there is something to compose from.

    Raises:
        ConfigError: if a configuration folder does not exist.
    """
    for folder in settings.conf_dirs:
        if not folder.is_dir():
            remedy = "check MLPLATFORM_CONF_DIR, or let `mlplatform new` make it"
            raise ConfigError(f"configuration folder {folder} does not exist; {remedy}")


def state_of_files(settings: Settings) -> str:
    """Return a digest of everything in the configuration folders that composed values depend on.

    Raises:
        ConfigError: if a folder does not exist.
    """
    require_folders(settings)
    digest = hashlib.sha256()
    for folder in settings.conf_dirs:
        # `rglob` does not follow a group folder that is a link; an editor's lock file is a link to nothing.
        for path in sorted({*folder.rglob("*.yaml"), *folder.glob("*/*.yaml")}):
            if not path.is_file():
                continue
            status = path.stat()
            digest.update(f"{path}\0{status.st_mtime_ns}\0{status.st_size}\n".encode())
    return digest.hexdigest()


def _compose(experiment: str, overrides: Sequence[str], settings: Settings) -> tuple[str, bool]:
    """Return the composed values as JSON and whether any of them was read from the environment."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import MISSING, OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    first, *others = settings.conf_dirs
    search_path = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in others)}]"] if others else []
    # The root lives in code, so that it is found whichever folder comes first.
    ConfigStore.instance().store(name=ROOT_CONFIG, node={"defaults": ["_self_", {"experiment": MISSING}]}, replace=True)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(first), job_name="mlplatform"):
            chosen = [_forced(override, settings) for override in overrides]
            asked = [f"experiment={experiment}", *search_path, *chosen]
            composed = hydra_compose(ROOT_CONFIG, overrides=asked, return_hydra_config=True)
        with open_dict(composed):
            choices = composed.pop("hydra").runtime.choices
        for group in VERSIONED_GROUPS:
            _check_version(group, choices.get(group), settings)
        reads_environment = re.search(r"\$\{\s*oc\.env", OmegaConf.to_yaml(composed)) is not None
        values = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException, YAMLError, OSError, UnicodeError) as error:
        given = f" with overrides {list(overrides)}" if overrides else ""
        raise ConfigError(f"experiment {experiment!r}{given} does not compose: {_reason(error)}") from error
    return json.dumps(values), reads_environment


def _reason(error: Exception) -> str:
    """Return what is wrong on one line, without the folders that Hydra lists and its pages of help."""
    said = re.split(r"Config search path:|See https?://", str(error))[0]
    return " ".join(said.split()) or type(error).__name__


def _check_version(group: str, option: str | None, settings: Settings) -> None:
    """Refuse an option whose file name is not the version that it records.

    Raises:
        ConfigError: naming the file and both versions.
    """
    from omegaconf import OmegaConf

    paths = [path for folder in settings.conf_dirs if (path := folder / group / f"{option}.yaml").is_file()]
    if option is None or not paths:
        return
    document = OmegaConf.to_container(OmegaConf.load(paths[0]))
    version = document.get("version", option) if isinstance(document, dict) else option
    if version != option:
        raise ConfigError(
            f"{paths[0]}: version is {version!r}, but must equal the file's name, {option!r}, because a "
            f"run asks for the version and records it with its model; set version: {option}, or rename the file"
        )


def _forced(override: str, settings: Settings) -> str:
    """Let an override set a key that no YAML file names, so that validation, which knows all keys, decides about it."""
    key, separator, _ = override.partition("=")
    is_value = separator and re.fullmatch(r"[A-Za-z_][\w.]*", key) and not key.startswith("hydra.")
    is_group = any((folder / key).is_dir() for folder in settings.conf_dirs)
    return f"++{override}" if is_value and not is_group else override
