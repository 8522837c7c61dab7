"""`promote`, `rollback`, `delete` and `export`: commands about registered versions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlplatform.cli import show
from mlplatform.cli.exits import Status, told
from mlplatform.cli.options import AsJson, Experiment, Who, Why, Yes

if TYPE_CHECKING:
    from mlplatform.api import Change, DeletionPlan

MIB = 1024**2


def promote(
    experiment: Experiment,
    version: Annotated[int | None, typer.Argument(min=1, help="Default: the newest.")] = None,
    why: Why = "",
    who: Who = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide, but change nothing.")] = False,
    json: AsJson = False,
) -> None:
    """Send a version through checks and gate, and into production if they say so."""
    with told():
        from mlplatform.api import promote as act

        change = act(experiment, version, why=why, who=who, dry_run=dry_run)
        _report(change, json)
        if not (change.done or dry_run):
            raise typer.Exit(Status.REFUSED)


def rollback(
    experiment: Experiment,
    version: Annotated[int | None, typer.Argument(min=1, help="Default: the previous one.")] = None,
    why: Why = "",
    who: Who = "",
    json: AsJson = False,
) -> None:
    """Put an earlier version back into production."""
    with told():
        from mlplatform.api import rollback as act

        _report(act(experiment, version, why=why, who=who), json)


def _report(change: Change, json: bool) -> None:
    if json:
        show.as_json(change)
        return
    outcome = "done" if change.done else "not done"
    show.line(f"{outcome}: {change.reason}")
    show.line(f"in production: {'nothing' if change.production is None else f'version {change.production}'}")
    for server in change.servers:
        show.line(f"server: {server}")


def delete(
    experiment: Experiment,
    with_data: Annotated[bool, typer.Option("--with-data", help="Also tables and splits of its dataset.")] = False,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan only.")] = False,
    json: AsJson = False,
) -> None:
    """Delete models, runs and files of an experiment; shows the plan first."""
    with told():
        from mlplatform.api import delete as act
        from mlplatform.api import plan_deletion

        plan = plan_deletion(experiment, with_data=with_data)
        if json:
            show.as_json(plan)
        else:
            _print(plan)
        if dry_run or plan.is_empty:
            return
        if not yes and not (sys.stdin.isatty() and typer.confirm("Delete this?", err=True)):
            show.note("nothing was deleted; say --yes to delete")
            raise typer.Exit(Status.REFUSED)
        act(experiment, with_data=with_data)
        show.note("deleted")


def _print(plan: DeletionPlan) -> None:
    if plan.is_empty:
        show.line(f"{plan.experiment}: there is nothing to delete")
        return
    if plan.production is not None:
        show.line(f"{plan.experiment} version {plan.production} IS IN PRODUCTION")
    rows: list[tuple[object, ...]] = [
        ("registered model", name, "1 version" if count == 1 else f"{count} versions")
        for name, count in plan.registered.items()
    ]
    if plan.runs:
        rows.append(("MLflow experiment", plan.experiment, "1 run" if plan.runs == 1 else f"{plan.runs} runs"))
    rows += [("folder", path, f"{size / MIB:.1f} MiB") for path, size in plan.folders.items()]
    show.table(["what", "name", "how much"], rows)
    show.line(f"stays: {', '.join(plan.kept)}")


def export(
    experiment: Experiment,
    folder: Annotated[Path, typer.Argument(help="New or empty folder.")],
    version: Annotated[str, typer.Option(help="Version number or alias.")] = "production",
) -> None:
    """Copy a pair into a folder, with a program that answers rows of a CSV file."""
    with told():
        from mlplatform.api import export_pair

        place = export_pair(experiment, folder, version=version)
        show.line(str(place))
        show.note(f"ask it: python {place / 'predict.py'} rows.csv")
