"""`status`, `history`, `compare` and `doctor`: commands that change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mlplatform.cli import show
from mlplatform.cli.exits import Status, told
from mlplatform.cli.options import AsJson, Experiment

if TYPE_CHECKING:
    from mlplatform.api import Status as Overview

MARKS = {"ok": "ok", "note": "note", "bad": "BAD"}


def status(
    experiments: Annotated[list[str] | None, typer.Argument(help="Default: all that were ever trained.")] = None,
    json: AsJson = False,
) -> None:
    """Show what is in production where, since when, why nothing newer is, drift, and what servers hold."""
    with told():
        from mlplatform.api import status as act

        found = act(experiments or ())
        if json:
            show.as_json(found)
        else:
            _print(found)


def _print(found: Overview) -> None:
    if found.experiments:
        columns = ["experiment", "production", "since", "family", "score", "newest", "drift", "live error"]
        rows = [
            (
                each.experiment,
                each.production,
                show.ago(each.since),
                each.family,
                "-" if each.score is None else f"{each.metric} {show.cell(each.score)}",
                each.newest,
                each.drift,
                "-"
                if each.live_error is None
                else f"{show.cell(each.live_error)} of {show.cell(each.reference_error)}",
            )
            for each in found.experiments
        ]
        show.table(columns, rows)
    else:
        first = next(iter(found.untrained), None)
        advice = f"try: mlplatform train {first}" if first else "begin with: mlplatform new FILE"
        show.line(f"nothing was ever trained here; {advice}")
    for each in found.experiments:
        if each.why_not_newer is not None:
            show.line(f"{each.experiment}: {each.why_not_newer}")
        for mistake in each.mistakes:
            show.line(f"{each.experiment} cannot be loaded: {mistake}")
    for server in found.servers:
        held = ", ".join(f"{name} version {version or '-'}" for name, version in server.serves.items())
        show.line(f"server {server.address}: {server.problem or held or 'serves nothing'}")
    if found.untrained:
        show.line(f"never trained: {', '.join(found.untrained)}")


def history(
    experiment: Experiment,
    limit: Annotated[int, typer.Option(min=1, help="How many versions, the newest first.")] = 20,
    json: AsJson = False,
) -> None:
    """Show the versions of an experiment, and every move of its aliases."""
    with told():
        from mlplatform.api import history as act

        found = act(experiment, limit=limit)
        if json:
            show.as_json(found)
            return
        versions = [
            (each.version, show.ago(each.created_at), each.family, each.alias_names, each.verdict)
            for each in found.versions
        ]
        show.table(["version", "made", "family", "aliases", "what became of it"], versions)
        moves = [
            (
                show.ago(each.when),
                each.alias,
                f"{each.from_version or '-'} -> {each.to_version or '-'}",
                each.who,
                each.why,
            )
            for each in found.moves
        ]
        show.table(["when", "alias", "version", "who", "why"], moves)


def compare(
    experiment: Experiment,
    first: Annotated[
        str | None,
        typer.Argument(help="Version number or alias; default: production, or what was before if that is the second."),
    ] = None,
    second: Annotated[str, typer.Argument(help="Version number or alias; `latest` is the newest.")] = "latest",
    json: AsJson = False,
) -> None:
    """Show scores, configuration and data of two versions beside each other."""
    with told():
        from mlplatform.api import compare as act

        found = act(experiment, first, second)
        if json:
            show.as_json(found)
            return
        if found.first == found.second:
            scores = [(name, value) for name, (value, _) in found.scores.items()]
            show.table(["score", f"version {found.first}"], scores)
            show.line(f"both are version {found.first}, so there is nothing to compare it with")
            return
        columns = [f"version {found.first}", f"version {found.second}"]
        show.table(["score", *columns], [(name, *values) for name, values in found.scores.items()])
        if found.differences:
            show.table(["differs", *columns], [(name, *values) for name, values in found.differences.items()])
        else:
            show.line("configuration and data are the same")


def doctor(json: AsJson = False) -> None:
    """Look after the installation, and say how to mend what is wrong."""
    with told():
        from mlplatform.api import diagnose

        findings = diagnose()
        if json:
            show.as_json(findings)
        else:
            rows = [(MARKS[each.level], each.what, each.found, each.remedy) for each in findings]
            show.table(["", "what", "found", "what to do"], rows)
        if any(each.level == "bad" for each in findings):
            raise typer.Exit(Status.FAILED)
