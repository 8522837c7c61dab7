"""The integrity of a registered pair: a clean process loads it from the registry and reproduces its stored answer.

A process that trained a pair holds its libraries, its random state and its fitted objects; one that starts from nothing
finds whatever was not stored. `python -m mlplatform.promotion.integrity` is that process. It reads two lines of JSON on
standard input, the settings and then which pair to look at, and answers with one on standard output. In between it
imports what it needs, so a process that is prepared early answers at once.
"""

from __future__ import annotations

import atexit
import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlplatform.registry.pairs import PairInfo, PairIntegrityError, PairNotFoundError, PairStore
from mlplatform.settings import SIGNING_KEY, SIGNING_KEY_PASSWORD, Settings

# Libraries may write to standard output, too.
ANSWER = "integrity: "
PATHS = frozenset(field.name for field in dataclasses.fields(Settings) if "Path" in str(field.type))
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class IntegrityReport:
    """What was found about a pair.

    Attributes:
        values: number of values of the stored answer that were compared, bit for bit.
        problems: what is not as it was registered; empty is a pass.
    """

    version: int
    pair_id: str
    values: int
    problems: tuple[str, ...]


def check_integrity(store: PairStore, info: PairInfo) -> IntegrityReport:
    """Verify all files of a pair, load it, and compare its answer to the stored input example, in this process."""
    try:
        store.verify(info)
        _, answer = store.example(info)
        problems = tuple(f"the stored input example: {line}" for line in store.reproduce_example(info))
    except PairIntegrityError as error:
        return IntegrityReport(info.version, info.pair_id, 0, (str(error),))
    return IntegrityReport(info.version, info.pair_id, int(answer.size), problems)


class CleanProcess:
    """A process that shares nothing with this one but the registry, and answers one request."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            text=True,
        )
        values = dataclasses.asdict(settings.without_signing_key())
        assert self._process.stdin is not None
        # Through the pipe, not on the command line: the settings hold passwords, and command lines are public.
        self._process.stdin.write(f"{json.dumps(values, default=str)}\n")
        self._process.stdin.flush()

    def check(self, info: PairInfo) -> IntegrityReport:
        """Return what the process finds; it ends with its answer."""
        request = json.dumps({"name": info.name, "version": info.version})
        try:
            output, errors = self._process.communicate(f"{request}\n", timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return _failed(info, f"the process that loads it did not answer within {TIMEOUT_S:g} s")
        finally:
            self.close()
        answers = [line.removeprefix(ANSWER) for line in output.splitlines() if line.startswith(ANSWER)]
        if self._process.returncode or not answers:
            ended = f"the process that loads it ended with status {self._process.returncode}"
            return _failed(info, f"{ended}: {errors.strip()[-1000:]}")
        found = json.loads(answers[-1])
        if found["pair_id"] != info.pair_id:
            return _failed(
                info, f"a clean process finds pair {found['pair_id']} under its version: {found['problems']}"
            )
        return IntegrityReport(info.version, info.pair_id, found["values"], tuple(found["problems"]))

    def close(self) -> None:
        """End the process if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


_prepared: list[CleanProcess] = []


def prepare_clean_process(settings: Settings) -> None:
    """Start the next check's process now, so that its imports run while this process does something else."""
    if _prepared and _prepared[0].settings == settings:
        return
    _close_prepared()
    _prepared.append(CleanProcess(settings))


def check_in_clean_process(settings: Settings, info: PairInfo) -> IntegrityReport:
    """Do what `check_integrity` does in a process that shares nothing with this one but the registry."""
    prepare_clean_process(settings)
    return _prepared.pop().check(info)


@atexit.register
def _close_prepared() -> None:
    while _prepared:
        _prepared.pop().close()


def _failed(info: PairInfo, problem: str) -> IntegrityReport:
    return IntegrityReport(info.version, info.pair_id, 0, (problem,))


def _environment() -> dict[str, str]:
    """Return what the process needs of this one's environment, which is not the key to sign with."""
    inherited = {name: value for name, value in os.environ.items() if name not in (SIGNING_KEY, SIGNING_KEY_PASSWORD)}
    return {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _path(value: Any) -> Any:
    return tuple(map(Path, value)) if isinstance(value, list) else Path(value)


def main() -> None:
    """Answer one request; end without an answer if none comes."""
    given: dict[str, Any] = json.loads(sys.stdin.readline())
    given |= {key: _path(given[key]) for key in PATHS if given[key] is not None}
    store = PairStore(Settings(**given))
    # The connection brings nearly all imports with it.
    store.client.search_experiments(max_results=1)
    line = sys.stdin.readline()
    if not line:
        return
    asked = json.loads(line)
    try:
        report = check_integrity(store, store.resolve(asked["name"], asked["version"]))
    except (PairIntegrityError, PairNotFoundError) as error:
        report = IntegrityReport(asked["version"], "none", 0, (str(error),))
    sys.stdout.write(f"{ANSWER}{json.dumps(dataclasses.asdict(report))}\n")


if __name__ == "__main__":
    main()
