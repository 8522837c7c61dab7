"""The experiment that a file suggests: looked at, written down, and checked."""

from __future__ import annotations

import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlplatform.api.facts import facts_html
from mlplatform.api.proposal.looking import look_at
from mlplatform.api.proposal.notes import notes_of
from mlplatform.api.proposal.roles import Task, roles_of
from mlplatform.api.proposal.writing import yaml_of
from mlplatform.calendars import zone_of
from mlplatform.config import NAME_PATTERN, ConfigError, load_experiment, options
from mlplatform.data import DataError
from mlplatform.data.sources import split_glob
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

# The family of the bases that a proposal stands on.
FAMILY = "xgboost"


@dataclass(frozen=True)
class Proposal:
    """An experiment on a file.

    Attributes:
        yaml: the experiment's file.
        notes: what was found, and what a person should look at, one sentence each.
        mistakes: what the configuration refuses about it; empty if it can be used as it is.
        is_enough: whether the file has, as far as can be told, enough rows to train on.
    """

    name: str
    task: Task
    yaml: str
    notes: tuple[str, ...]
    mistakes: tuple[str, ...] = ()
    is_enough: bool = True

    def _repr_html_(self) -> str:
        return facts_html(vars(self))

    def write(self, settings: Settings | None = None, *, overwrite: bool = False) -> Path:
        """Write the file where experiments are looked up first, and return its path.

        Raises:
            ConfigError: if there is such an experiment already.
        """
        folder = (settings or Settings.from_env()).conf_dirs[0] / "experiment"
        path = folder / f"{self.name}.yaml"
        if path.exists() and not overwrite:
            raise ConfigError(f"{path} is there already; choose another name, or ask for it to be overwritten")
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            temporary.write_text(self.yaml, encoding="utf-8")
        return path


def propose(
    files: str | Path | Sequence[str | Path],
    *,
    name: str | None = None,
    targets: Sequence[str] = (),
    time: str | None = None,
    entity: str | None = None,
    timezone: str | None = None,
    settings: Settings | None = None,
) -> Proposal:
    """Look at a table in files and propose an experiment on it; nothing is written.

    Parameters:
        files: of CSV, JSON lines or Excel, compressed or not: one, several, or a pattern such as `sales/*.csv`.
        name: of the experiment; default: from the file's name and the model's. The dataset goes by the file's, or by
            the folder's of several.
        targets: columns to predict; this and the next two are for where the file's look would mislead.
        time: the column of times.
        entity: the column that names the series.
        timezone: of times without a zone, as `Europe/Berlin`; default: the one whose clocks explain hours that are
            there twice, or else UTC.

    Raises:
        DataError: if the file cannot be read, or a named column is not in it.
        ConfigError: if the name cannot be one, or is that of a packaged example.
        CalendarError: if there is no such zone.
    """
    settings = settings or Settings.from_env()
    if timezone is not None:
        zone_of(timezone)
    paths, uris = _found([files] if isinstance(files, str | Path) else list(files))
    dataset = _name(paths[0].name.split(".")[0] if len(paths) == 1 else paths[0].parent.name)
    name = f"{dataset}_{FAMILY}" if name is None else name
    packaged = _packaged(settings)
    dataset = f"{dataset}_data" if dataset in (name, *packaged) else dataset
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(f"{name!r} cannot be a name; use lower-case letters, digits and underscores")
    if name in packaged:
        raise ConfigError(
            f"{name!r} is a packaged experiment or dataset, which others are made of; choose another with --name"
        )
    roles = roles_of(look_at(paths, uris), tuple(targets), time, entity, timezone)
    if timezone is None and len(roles.zones) == 1:
        roles = replace(roles, timezone=roles.zones[0])
    text = "\n".join(yaml_of(name, dataset, roles)) + "\n"
    return Proposal(name, roles.task, text, tuple(notes_of(roles)), _mistakes(name, text, settings), roles.is_enough)


def _packaged(settings: Settings) -> tuple[str, ...]:
    """Return the names of the packaged examples, if those are wanted."""
    own = replace(settings, conf_dir=None)
    return (*options("experiment", own), *options("dataset", own))


def _mistakes(name: str, text: str, settings: Settings) -> tuple[str, ...]:
    """Return what the configuration says about the text."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "experiment")
        folder.mkdir()
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        try:
            load_experiment(name, settings=replace(settings, conf_dir=Path(place)))
        except ConfigError as error:
            return error.mistakes
    return ()


def _found(files: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """Return files by absolute paths, and what the configuration names to read them: a pattern as it stands."""
    paths, uris = [], []
    for file in files:
        path = Path(file).expanduser().absolute()
        base, pattern = split_glob(path)
        is_pattern = base != path and not path.exists()
        paths += sorted(base.glob(pattern)) if is_pattern else [path]
        uris.append(str(path))
    if twice := next((path for path, count in Counter(paths).items() if count > 1), None):
        raise DataError(f"{twice} is named twice; every row of it would count twice")
    return paths or [Path(files[0])], uris


def _name(text: str) -> str:
    # Letters lose their marks, rather than names their letters.
    plain = "".join(
        letter for letter in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(letter)
    )
    stem = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    return stem if re.match(r"[a-z]", stem) else f"data_{stem}".rstrip("_")
