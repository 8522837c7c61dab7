"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer


def _experiments(incomplete: str) -> list[str]:
    """Complete the name of an experiment."""
    from mlplatform.config import experiment_names

    return [name for name in experiment_names() if name.startswith(incomplete)]


Experiment = Annotated[str, typer.Argument(help="Name of the experiment.", autocompletion=_experiments)]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with JSON.")]
Why = Annotated[str, typer.Option("--why", help="Reason, for the alias history.")]
Who = Annotated[str, typer.Option("--who", help="Who asks; default: your user name.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
