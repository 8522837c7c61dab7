"""`train` and `forecast`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlplatform.cli import show
from mlplatform.cli.exits import Status, told
from mlplatform.cli.options import AsJson, Experiment

if TYPE_CHECKING:
    import pandas as pd

    from mlplatform.api import Forecast


def train(
    experiment: Experiment,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="Hydra override, such as tuning.trials=10; may be repeated.")
    ] = None,
    split_version: Annotated[str | None, typer.Option(help="Split version, optionally <name>@YYYYMMDDTHHMM.")] = None,
    feature_version: Annotated[str | None, typer.Option(help="Option of the group features.")] = None,
    model_version: Annotated[str | None, typer.Option(help="Option of the group model.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Train, register and decide, but promote nothing.")
    ] = False,
    despite_broken_data: Annotated[
        bool, typer.Option("--despite-broken-data", help="Train though the newest drift report says broken.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Train an experiment, and promote what comes out if the gate says so."""
    asked = {"split_version": split_version, "feature_version": feature_version, "model_version": model_version}
    with told():
        from mlplatform.api import train as act

        result = act(
            experiment,
            versions={key: value for key, value in asked.items() if value is not None},
            overrides=override or (),
            dry_run=dry_run,
            despite_broken_data=despite_broken_data,
            on_line=show.note,
        )
        if json:
            show.as_json(result)
        elif result.succeeded:
            outcome = "promoted" if result.promoted else "not promoted"
            show.line(f"{experiment} version {result.version}: {outcome}; {result.reason}")
        else:
            show.line(f"{experiment}: failed; the whole output is in {result.log}")
        if not result.succeeded:
            show.note(f"mlplatform: {_shortest(result.reason)}")
            raise typer.Exit(Status.FAILED)
        if not (result.promoted or dry_run):
            raise typer.Exit(Status.REFUSED)


def _shortest(reason: str) -> str:
    """Return the line of a failed run's reason that says why; the others say where, or are a trace."""
    lines = reason.splitlines()
    return next((line for line in lines if not line.startswith(("in the step ", "before its first step"))), reason)


def forecast(
    experiment: Experiment,
    entity: Annotated[list[str] | None, typer.Option("--entity", help="Only this one; may be repeated.")] = None,
    at: Annotated[str, typer.Option(help="A past moment, of which only what was known then is read.")] = "now",
    future: Annotated[
        Path | None, typer.Option(help="CSV or Parquet with rows of known-future columns, for a what-if.")
    ] = None,
    version: Annotated[str, typer.Option(help="Version number or alias.")] = "production",
    timezone: Annotated[
        str, typer.Option(help="Zone of the times shown, as Europe/Berlin; local is that of the dataset.")
    ] = "UTC",
    out: Annotated[Path | None, typer.Option(help="Write all rows to this .csv or .parquet file.")] = None,
    json: AsJson = False,
) -> None:
    """Forecast from the feature store, with the numbers that a server would give."""
    with told():
        from mlplatform.api import forecast as act

        _require_suffix(out)
        rows = None if future is None else _read(future)
        found = act(experiment, entity or None, at=at, future=rows, version=version, timezone=timezone)
        if out is not None:
            _write(found.rows, out)
        if json:
            show.as_json(found)
        else:
            _print(found, out)
        if found.rows.empty:
            raise typer.Exit(Status.REFUSED)


def _print(found: Forecast, out: Path | None) -> None:
    show.note(f"{found.experiment} version {found.version}, as known at {found.time_point}")
    if out is None:
        columns = ["entity_id", "timestamp", "target", "label", "value", "lower", "upper"]
        rows = found.rows[columns].dropna(axis="columns", how="all")
        # Of a classification the value is the probability of the label.
        show.frame(rows.rename(columns={"value": "probability"}) if "label" in rows else rows)
    else:
        show.note(f"{len(found.rows)} rows written to {out}")
    _print_age(found)
    if len(found.left_out):
        show.note(f"without a forecast: {len(found.left_out)} entities")
        for entity, reason, what in found.left_out.head(10).itertuples(index=False):
            show.note(f"  {entity}: {reason}, {what}")


def _print_age(found: Forecast) -> None:
    """Say of how many entities the features are older than they should be."""
    old = found.rows[found.rows["stale"].astype(bool)]
    if len(old):
        newest = old["age_seconds"].max() / 3600
        age = f"{newest:.0f} h" if newest < 48 else f"{newest / 24:.0f} days"
        show.note(f"features of {old['entity_id'].nunique()} entities are stale: their newest row is up to {age} old")


def _require_suffix(path: Path | None) -> None:
    if path is not None and path.suffix not in (".csv", ".parquet"):
        raise typer.BadParameter(f"{path} must end in .csv or .parquet", param_hint="--out")


def _read(path: Path) -> pd.DataFrame:
    """Return the rows of a file.

    Raises:
        BadParameter: if there is no such file.
        DataError: if it cannot be read.
    """

    from mlplatform.data import DataError

    if not path.is_file():
        raise typer.BadParameter(f"{path} is not a file", param_hint="--future")
    try:
        return _table(path)
    except (ValueError, OSError) as error:
        kind = "Parquet" if path.suffix == ".parquet" else "CSV"
        raise DataError(f"{path} cannot be read as {kind}: {error}") from error


def _table(path: Path) -> pd.DataFrame:
    import pandas as pd

    # As text, so that an entity such as 007 stays what it is; times and numbers are read where they are used.
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype={0: str, "entity_id": str})


def _write(rows: pd.DataFrame, path: Path) -> None:
    from mlplatform.storage import atomic_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        if path.suffix == ".parquet":
            rows.to_parquet(temporary, index=False)
        else:
            rows.to_csv(temporary, index=False)
