"""What the command's exit status means, and how errors become one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer

DEBUG = "MLPLATFORM_DEBUG"


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
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        sys.stderr.write(f"mlplatform: {_words(error)}\n")
        sys.exit(Status.FAILED)


def _words(error: Exception) -> str:
    """Return what an error of this project says; of others also their kind, since their words count on a trace."""
    if type(error).__module__.startswith(("mlplatform.", "serving.")):
        return str(error)
    return f"{type(error).__name__}: {error}\n(set {DEBUG}=1 for the trace)"
