"""Processes that start in a moment: forks of one server that has imported the heavy libraries.

Here: running a function or a command line in a process of its own, whose output, status and death can be looked at.
Not here: processes whose start, imports or environment at start are themselves what a test is about.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from types import TracebackType
from typing import Any

from mlplatform.settings import PACKAGE_ROOT

INITIAL_PATH = tuple(sys.path)


class Fork:
    """A function that runs in a process of its own.

    Parameters:
        function: importable by its name.
        arguments: can be pickled.
        environ: variables on top of this process's; one that is None is taken away.
        folder: where the process works; by default where this one does.
        path: folders that come first where Python looks for modules.

    Attributes:
        pid: id of the process.
    """

    def __init__(
        self,
        function: Callable[..., object],
        *arguments: object,
        environ: Mapping[str, str | None] | None = None,
        folder: Path | None = None,
        path: Sequence[str] = (),
    ) -> None:
        variables = {**os.environ, **(environ or {})}
        self._place = tempfile.TemporaryDirectory(prefix="mlplatform-fork-")
        self._outputs = [Path(self._place.name) / name for name in ("stdout", "stderr")]
        for output in self._outputs:
            output.touch()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["mlplatform.testing.preloaded"])
        self._process = context.Process(
            target=_run,
            args=(
                function,
                arguments,
                {name: value for name, value in variables.items() if value is not None},
                str(folder or Path.cwd()),
                list(path),
                [str(output) for output in self._outputs],
            ),
        )
        with _importable():
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def __enter__(self) -> Fork:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.wait()

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    @property
    def stdout(self) -> str:
        """What it has printed."""
        return self._outputs[0].read_text()

    @property
    def stderr(self) -> str:
        """What it has printed to the standard error."""
        return self._outputs[1].read_text()

    def poll(self) -> int | None:
        """Return `returncode`."""
        return self.returncode

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._process.kill()

    def wait(self, timeout: float = 300) -> int:
        """Wait for the end and return the exit status.

        Raises:
            TimeoutExpired: after so many seconds; the process is killed then.
        """
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            self._process.join()
            raise TimeoutExpired(f"process {self.pid}", timeout, self.stdout, self.stderr)
        return self.returncode


def run(
    command: Sequence[str | Path],
    *,
    environ: Mapping[str, str | None] | None = None,
    folder: Path | None = None,
    timeout: float = 300,
) -> CompletedProcess[str]:
    """Run a command line of Python and return what it printed and its status.

    Parameters:
        command: a console script of this installation by its name, such as `dagster`, or `-m` and a module; then its
            arguments.
    """
    words = [str(word) for word in command]
    variables = {**os.environ, **(environ or {})}
    path = [part for part in (variables.get("PYTHONPATH") or "").split(os.pathsep) if part]
    with Fork(execute, words, environ=environ, folder=folder, path=path) as process:
        status = process.wait(timeout)
        return CompletedProcess(words, status, process.stdout, process.stderr)


def execute(command: Sequence[str]) -> None:
    """Do in this process what a command line of `run` says."""
    first, *rest = command
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        script = Path(sys.executable).with_name(first)
        sys.argv = [str(script), *rest]
        runpy.run_path(str(script), run_name="__main__")


@contextlib.contextmanager
def _importable() -> Iterator[None]:
    """The server, which starts with the first process, has to find this package wherever it stands."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE_ROOT.parent), before]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _run(
    function: Callable[..., object],
    arguments: Sequence[Any],
    environ: dict[str, str],
    folder: str,
    path: list[str],
    outputs: Sequence[str],
) -> None:
    """Become a process with its own environment, folder and output, then call the function."""
    for number, output in zip((1, 2), outputs, strict=True):
        descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    os.chdir(folder)
    # As the server found it: what the caller has put there since is not this process's.
    sys.path[:] = [*path, *INITIAL_PATH]
    try:
        function(*arguments)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
