"""`serve` and `ui`: programs of their own, which take the place of this process."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from mlplatform.cli.exits import told


def serve(
    experiments: Annotated[list[str] | None, typer.Argument(help="The first answers where a route names none.")] = None,
    host: Annotated[str | None, typer.Option(help="Default: MLPLATFORM_HOST, else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: MLPLATFORM_PORT, else 8000.")] = None,
    ray: Annotated[bool, typer.Option("--ray", help="On Ray Serve instead of in one process.")] = False,
) -> None:
    """Start the prediction server."""
    command = [sys.executable, "-m", "serving.ray_app" if ray else "serving.local"]
    if experiments:
        command += ["--experiment", ",".join(experiments)]
    command += [text for name, value in (("--host", host), ("--port", port)) if value for text in (name, str(value))]
    with told():
        from mlplatform.config import require_experiments
        from mlplatform.settings import EVERY, Settings

        asked = [name.strip() for each in experiments or () for name in each.split(",")]
        require_experiments((name for name in asked if name != EVERY), Settings.from_env())
        os.execv(command[0], command)  # noqa: S606 - this project's own program


def ui(
    host: Annotated[str, typer.Option(help="Where the page listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Its port.")] = 3000,
) -> None:
    """Start the Dagster page and its daemon."""
    with told():
        from mlplatform.api import dagster_command, dagster_environment
        from mlplatform.settings import Settings

        environment = dagster_environment(Settings.from_env())
        command = [dagster_command(), "dev", "-m", "mlplatform.definitions", "--host", host, "--port", str(port)]
        os.execve(command[0], command, environment)  # noqa: S606 - this project's own program
