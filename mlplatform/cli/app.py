"""The application: all commands, one after the other as `mlplatform --help` lists them.

Modules of commands import what they need when they run, so that `--help` and a typing mistake cost nothing.
"""

from __future__ import annotations

import typer

from mlplatform.cli import data, lifecycle, looking, programs, training

app = typer.Typer(
    name="mlplatform",
    help="From raw data to a model in production: look, train, forecast, promote, go back, serve.",
    epilog="Exit status: 0 done, 1 failed, 2 wrong usage, 3 done and the answer is no (refused, mistakes found).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("new")(data.new)
app.command("check")(data.check)
app.command("train")(training.train)
app.command("forecast")(training.forecast)
app.command("status")(looking.status)
app.command("history")(looking.history)
app.command("compare")(looking.compare)
app.command("promote")(lifecycle.promote)
app.command("rollback")(lifecycle.rollback)
app.command("delete")(lifecycle.delete)
app.command("export")(lifecycle.export)
app.command("doctor")(looking.doctor)
app.command("serve")(programs.serve)
app.command("ui")(programs.ui)


def main() -> None:
    """Run the command."""
    app()
