"""The pair that a reader worked with last, kept on its own machine, so that it starts while the registry is away.

What is kept is what was verified when it was read from the registry, with the digests that were in the registry then;
it is checked against them again whenever it is read. Per name the newest two are kept, so that nothing is deleted that
another process has just begun to copy.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

from mlplatform.registry.forecaster import Forecaster
from mlplatform.registry.pairs.artifacts import Fetch, load_pair, verified_copy
from mlplatform.registry.pairs.info import ROLES, PairInfo
from mlplatform.settings import Settings

logger = logging.getLogger(__name__)

DESCRIPTION = "pair.json"
_KEPT = 2


class KeptPairs:
    """The kept pairs of one machine.

    Parameters:
        folder: holds one folder per name, and in it one per pair.
        verify_keys: as in `Fetch`; default: those that the environment names.
    """

    def __init__(self, folder: Path, verify_keys: tuple[Path, ...] | None = None) -> None:
        self._folder = folder
        self._verify_keys = Settings.from_env().verify_keys if verify_keys is None else verify_keys

    def keep(self, info: PairInfo, fetch: Fetch) -> None:
        """Copy a pair here, unless it is here already, and make it the last one of its name.

        Raises:
            PairIntegrityError: if what `fetch` brings is not what was registered.
            OSError: if the disk refuses.
        """
        place = self._folder / info.name / info.pair_id
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=place.parent) as folder:
                whole = Path(folder, "pair")
                for role in ROLES:
                    with verified_copy(fetch, info, role) as artifacts:
                        shutil.copytree(artifacts.parent, whole / role)
                (whole / DESCRIPTION).write_text(info.to_json())
                try:
                    whole.rename(place)
                except OSError:
                    # Another process of the machine has kept it meanwhile.
                    if not place.exists():
                        raise
        self._describe(place / DESCRIPTION, info)
        self._forget_old(info.name)

    def last(self, name: str) -> PairInfo | None:
        """Return the pair that was kept last under a name; `None` if there is none that can be read."""
        for description in self._newest_first(name):
            try:
                return PairInfo.from_json(description.read_text())
            except (OSError, ValueError, KeyError, TypeError) as error:
                logger.warning("passed over the kept pair %s: %s", description.parent, error)
        return None

    def load(self, info: PairInfo) -> Forecaster:
        """Read a kept pair, verifying signature and digests before anything is deserialised.

        Raises:
            PairIntegrityError: if a file is missing or was changed, or the pair lacks the signature that it needs.
        """
        return load_pair(self.fetch, info)

    @property
    def fetch(self) -> Fetch:
        """What is kept as a place that stored models are copied from."""
        return Fetch(self._copy, self._verify_keys)

    def _copy(self, info: PairInfo, role: str, place: Path) -> Path:
        return Path(shutil.copytree(self._folder / info.name / info.pair_id / role, place / "copy"))

    def _describe(self, path: Path, info: PairInfo) -> None:
        """Make a kept pair the last one of its name, as the registry describes it now: it may be signed since."""
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
            written = Path(folder, DESCRIPTION)
            written.write_text(info.to_json())
            # The system's clock of files stands still for some milliseconds.
            os.utime(written, ns=(time.time_ns(),) * 2)
            written.replace(path)

    def _newest_first(self, name: str) -> list[Path]:
        found = [(path.stat().st_mtime_ns, path) for path in (self._folder / name).glob(f"*/{DESCRIPTION}")]
        return [path for _, path in sorted(found, reverse=True)]

    def _forget_old(self, name: str) -> None:
        for description in self._newest_first(name)[_KEPT:]:
            shutil.rmtree(description.parent, ignore_errors=True)
