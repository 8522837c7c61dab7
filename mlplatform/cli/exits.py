"""What the command's exit status means, and how errors become one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

import typer

from mlplatform.settings import Settings, without_credentials

DEBUG = "MLPLATFORM_DEBUG"
# As a shell has it for a program that SIGPIPE ended.
PIPE_CLOSED = 141


class Status(IntEnum):
    """Exit statuses. 2 is also what a wrong option or an unknown command ends with."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3


@contextmanager
def told() -> Iterator[None]:
    """Turn an error into one line on the standard error and the exit status 1; with `MLPLATFORM_DEBUG` set, a trace."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except BrokenPipeError:
        # Who reads from the pipe has seen enough; what is still to be written must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(PIPE_CLOSED)
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        sys.stderr.write(f"mlplatform: {_words(error)}\n")
        sys.exit(Status.FAILED)


def _words(error: Exception) -> str:
    """Return what an error of this project says; of others also their kind, since their words count on a trace."""
    if type(error).__module__.startswith(("mlplatform.", "serving.")):
        return without_credentials(str(error))
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}{_remedy(Path(os.fsdecode(error.filename)))}"
    return without_credentials(f"{type(error).__name__}: {error} ({DEBUG}=1 shows the trace)")


def _remedy(path: Path) -> str:
    """Return what to do about a path that the system refuses, by the variable that leads to it."""
    settings = Settings.from_env()
    for name, folder in (("MLPLATFORM_HOME", settings.home), ("MLPLATFORM_CONF_DIR", settings.conf_dir)):
        if folder is not None and path.absolute().is_relative_to(folder.absolute()):
            return f"; give its owner the right, or set {name} (now {folder}) to a folder of yours"
    return ""
