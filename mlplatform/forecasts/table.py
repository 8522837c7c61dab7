"""The table of forecasts of an experiment: a folder per origin, which a run replaces as a whole or not at all.

    <forecasts>/<experiment>/origin=20240301T000000Z/chunk-00000.parquet, chunk-00001.parquet, ...
                                                     _left_out.parquet, _run.json

Names with an underscore are no data to Parquet readers. The folder is a link that swings when a run is complete, so a
killed run leaves the table as it was, and whoever reads the old folder may finish.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.locks import FileLock
from mlplatform.settings import Settings
from mlplatform.state_files import read_state
from mlplatform.storage import atomic_folder

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ORIGIN = "origin"
LEFT_OUT_FILE, RUN_FILE = "_left_out.parquet", "_run.json"
KEEP_PREVIOUS_S = 600.0
STAGED = ".staged."


def experiment_folder(settings: Settings, experiment: str) -> Path:
    """Return the folder of an experiment's table."""
    return settings.forecasts_dir / experiment


def origin_name(origin: pd.Timestamp) -> str:
    """Return the folder of an origin, in UTC and to the microsecond where it has any."""
    text = f"{origin.tz_convert('UTC'):%Y%m%dT%H%M%S.%f}".removesuffix(".000000")
    return f"{ORIGIN}={text}Z"


def origin_of(name: str) -> pd.Timestamp:
    """Return the origin whose folder has a name."""
    import pandas as pd

    return pd.Timestamp(name.removeprefix(f"{ORIGIN}="))


class Stage:
    """The files of one run, out of sight until the run is complete."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self._home = home
        self._chunks = 0

    def write(self, table: pa.Table) -> None:
        """Add the rows of a chunk of entities."""
        import pyarrow.parquet as pq

        pq.write_table(table, self.folder / f"chunk-{self._chunks:05d}.parquet")
        self._chunks += 1

    def complete(self, origin: pd.Timestamp, left_out: pa.Table, run: Mapping[str, Any]) -> Path:
        """Put the files in the place of those of the same origin, and return their folder."""
        import pyarrow.parquet as pq

        pq.write_table(left_out, self.folder / LEFT_OUT_FILE)
        (self.folder / RUN_FILE).write_text(json.dumps(run, indent=1, sort_keys=True), encoding="utf-8")
        target = self._home / origin_name(origin)
        with atomic_folder(target, keep_previous_s=KEEP_PREVIOUS_S) as folder:
            for path in self.folder.iterdir():
                path.rename(folder / path.name)
        return target


@contextlib.contextmanager
def staged_run(settings: Settings, experiment: str) -> Iterator[Stage]:
    """Yield where a run writes; runs of one experiment follow each other, and files of killed ones are deleted."""
    home = experiment_folder(settings, experiment)
    with FileLock(home.parent / f"{experiment}.lock"):
        home.mkdir(parents=True, exist_ok=True)
        for path in home.glob(f"{STAGED}*"):
            shutil.rmtree(path, ignore_errors=True)
        folder = home / f"{STAGED}{uuid.uuid4().hex}"
        folder.mkdir()
        try:
            yield Stage(folder, home)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def chunk_files(folder: Path) -> list[Path]:
    """Return the files of a run in their order."""
    return sorted(folder.resolve().glob("chunk-*.parquet"))


@dataclass(frozen=True)
class StoredRun:
    """The forecasts of one origin, as the last run for it left them.

    Attributes:
        name: of the folder, `origin=...`.
        folder: where the files are; they stay for ten minutes after the next run.
        made_at: when the run made them.
        known_at: the moment by whose knowledge they were made.
        text: changes with every run.
        trained_until: the moment before which the pair's training rows lie; `None` where that is not known.
    """

    name: str
    folder: Path
    made_at: pd.Timestamp
    known_at: pd.Timestamp
    text: str
    trained_until: pd.Timestamp | None = None

    @property
    def files(self) -> list[Path]:
        """The files with the rows, in their order."""
        return chunk_files(self.folder)


def stored_runs(settings: Settings, experiment: str) -> list[StoredRun]:
    """Return the runs whose forecasts are there, oldest origin first; one that does not say when it was made is not."""
    found = []
    for link in sorted(experiment_folder(settings, experiment).glob(f"{ORIGIN}=*")):
        folder = link.resolve()
        otherwise = f"its forecasts are left out; run forecast_{experiment} for the origin again, or restore the file"
        times = read_state(folder / RUN_FILE, _times, otherwise)
        if times is not None:
            made_at, time_point, trained_until = times
            known_at = made_at if time_point == "now" else origin_of(link.name)
            found.append(StoredRun(link.name, folder, made_at, known_at, folder.name, trained_until))
    return found


def _times(text: str) -> tuple[pd.Timestamp, str, pd.Timestamp | None]:
    """Return when a run was made, its point of time, and until when its pair was trained, from its file.

    Raises:
        ValueError, KeyError, TypeError: if it says not even the first two.
    """
    state = json.loads(text)
    # Runs of earlier versions do not say until when.
    trained_until = state.get("trained_until")
    return _zoned(state, "made_at"), state["time_point"], trained_until and _zoned(state, "trained_until")


def _zoned(state: Mapping[str, str], key: str) -> pd.Timestamp:
    import pandas as pd

    time = pd.Timestamp(state[key])
    if pd.isna(time) or time.tzinfo is None:
        raise ValueError(f"{key} is {state[key]!r}, no time with a zone")
    return time


def read_forecasts(settings: Settings, experiment: str, origin: pd.Timestamp | None = None) -> pd.DataFrame:
    """Return the forecasts of an experiment, of one origin or of all, with the column `origin` (UTC).

    Raises:
        FileNotFoundError: if there are none.
    """
    folders = _folders(settings, experiment, origin)
    return _read({folder: chunk_files(folder) for folder in folders})


def read_left_out(settings: Settings, experiment: str, origin: pd.Timestamp | None = None) -> pd.DataFrame:
    """Return the entities without a forecast: `entity_id`, `reason` (a word), `found` (a text) and `origin`.

    Raises:
        FileNotFoundError: if no run has left a table.
    """
    folders = _folders(settings, experiment, origin)
    return _read({folder: [folder.resolve() / LEFT_OUT_FILE] for folder in folders})


def _folders(settings: Settings, experiment: str, origin: pd.Timestamp | None) -> list[Path]:
    home = experiment_folder(settings, experiment)
    folders = sorted(home.glob(f"{ORIGIN}=*")) if origin is None else [home / origin_name(origin)]
    found = [folder for folder in folders if folder.is_dir()]
    if not found:
        raise FileNotFoundError(f"there are no forecasts in {home}; run the job forecast_{experiment}")
    return found


def _read(files: Mapping[Path, list[Path]]) -> pd.DataFrame:
    import pandas as pd
    import pyarrow.parquet as pq

    frames = []
    for folder, paths in files.items():
        for path in paths:
            frame = pq.read_table(path, partitioning=None).to_pandas()
            frames.append(frame.assign(**{ORIGIN: origin_of(folder.name)}))
    rows: pd.DataFrame = pd.concat(frames, ignore_index=True)
    return rows
