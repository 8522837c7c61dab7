"""`new` and `check`: from a file to a configuration that holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlplatform.cli import show
from mlplatform.cli.exits import Status, told
from mlplatform.cli.options import AsJson


def new(
    files: Annotated[list[Path], typer.Argument(help="CSV, JSON lines or Excel files of one table.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the experiment; default: the file's, and the model's.")
    ] = None,
    target: Annotated[list[str] | None, typer.Option("--target", help="Column to predict; may be repeated.")] = None,
    time: Annotated[str | None, typer.Option(help="Column of times.")] = None,
    entity: Annotated[str | None, typer.Option(help="Column that names the series.")] = None,
    timezone: Annotated[
        str | None,
        typer.Option(help="Zone of times without one, as Europe/Berlin; default: told by repeated hours, or UTC."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an experiment of that name.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the YAML and write nothing.")] = False,
    json: AsJson = False,
) -> None:
    """Look at a table in files and write an experiment for it."""
    with told():
        from mlplatform.api import propose

        proposal = propose(files, name=name, targets=target or (), time=time, entity=entity, timezone=timezone)
        path = None if dry_run or proposal.mistakes else proposal.write(overwrite=overwrite)
        if json:
            show.as_json({**vars(proposal), "path": path})
        else:
            for sentence in proposal.notes:
                show.note(f"  {sentence}")
            show.line(proposal.yaml.rstrip())
            for mistake in proposal.mistakes:
                show.note(f"  this does not hold: {mistake}")
            if path is not None:
                show.note(f"written to {path}")
                train = f"mlplatform train {proposal.name}"
                show.note(f"next: {train}" if proposal.is_enough else f"once there are enough rows: {train}")
        if proposal.mistakes:
            if not json:
                show.note("nothing was written; name other columns, or put the YAML right by hand")
            raise typer.Exit(Status.REFUSED)


def check(
    explain: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Experiment: show instead what its data's frequency fills in, as YAML."),
    ] = None,
    json: AsJson = False,
) -> None:
    """List all mistakes of all configuration files."""
    with told():
        import yaml

        from mlplatform.config import check_all, explain_experiment

        if explain is not None:
            values = explain_experiment(explain)
            if json:
                show.as_json(values)
            else:
                show.line(yaml.safe_dump(values, sort_keys=False).rstrip() if values else "# nothing is left open")
            return
        listing = check_all()
        show.line(listing.to_json() if json else listing.to_text())
        if listing.mistakes:
            raise typer.Exit(Status.REFUSED)
