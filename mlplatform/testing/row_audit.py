"""The row-access audit of nested cross-validation: proof that tuning does not read the rows it is judged on.

Two independent proofs. Every row whose values the procedure reads is recorded where values leave the panel, and the
procedure is run again with all other rows poisoned, which must not change a bit of what it makes.
"""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlplatform.candidates.candidate import REPORT_FILE, Candidate
from mlplatform.candidates.nested_cv import run_procedure
from mlplatform.datamodule import DataModule, Fold, Int64, Panel

HUGE = np.float32(1e30)

Procedure = Callable[[DataModule, Fold, Path], Candidate]
Column = npt.NDArray[np.generic]


@dataclass(frozen=True)
class RowAudit:
    """What the procedure did with the rows of one outer fold.

    Attributes:
        read: rows whose values were read.
        touched: those among them that are not outer training rows; empty in a sound procedure.
        differences: what differs between the run on the data and the run on data whose other rows are poisoned, such
            as `trials` or `preprocessor/preprocessor.json`, or `error` if the latter fails; empty in a sound procedure.
    """

    read: Int64
    touched: Int64
    differences: tuple[str, ...]


def audit_rows(module: DataModule, fold: Fold, folder: Path, procedure: Procedure = run_procedure) -> RowAudit:
    """Run the procedure on one outer fold as it is, and recorded and poisoned.

    Parameters:
        module: all training rows of the experiment. Its search must be repeatable, so without a time limit and in one
            process, where reads can be seen.
        folder: empty; for the journals.
    """
    clean = fingerprint(procedure(module, fold, folder / "clean.journal"))
    outside = ~module.row_mask(fold.fit_rows)
    seen = np.zeros(module.panel.rows, dtype=bool)
    watched = copy.copy(module)
    watched.panel = RecordedPanel.record(poison(module.panel, outside), seen)
    try:
        poisoned = fingerprint(procedure(watched, fold, folder / "poisoned.journal"))
    except Exception as error:
        # It worked on the data as it is: poison that stops the procedure was read.
        poisoned = {"error": f"{type(error).__name__}: {error}"}
    names = sorted(set(clean) | set(poisoned))
    return RowAudit(
        read=np.flatnonzero(seen),
        touched=np.flatnonzero(seen & outside),
        differences=tuple(name for name in names if clean.get(name) != poisoned.get(name)),
    )


def poison(panel: Panel, rows: npt.NDArray[np.bool_]) -> Panel:
    """Return the panel with values in the given rows that nothing could read unnoticed: missing and huge ones in turn.

    Parameters:
        rows: mask of shape (rows,).
    """
    positions = np.flatnonzero(rows)
    columns = {}
    for name, values in panel.columns.items():
        changed = values.copy()
        turns = [None, "poisoned"] if values.dtype == object else [np.nan, HUGE]
        changed[positions] = np.resize(np.array(turns, dtype=values.dtype), len(positions))
        columns[name] = changed
    return panel.with_columns(columns)


def fingerprint(candidate: Candidate) -> dict[str, str]:
    """Return what a procedure made, part by part: stored files as SHA-256, choices and scores as exact text."""
    report = candidate.report
    trials = [{key: value for key, value in row.items() if key != "seconds"} for row in report.trials]
    parts = {
        "params": report.params,
        "iterations": report.iterations,
        "trials": trials,
        "inner scores": report.candidate.folds,
        "inner scores of the baselines": {name: each.folds for name, each in report.baselines.items()},
    }
    found = {name: json.dumps(value, sort_keys=True) for name, value in parts.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        candidate.save(folder)
        files = (path for path in folder.rglob("*") if path.is_file() and path.name != REPORT_FILE)
        found |= {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return found


class RecordedColumns(Mapping[str, Column]):
    """Columns that mark the rows they belong to as read when one of them is handed out.

    Parameters:
        numbers: number of every row in the panel that is audited, of shape (rows,).
        seen: of shape (rows of that panel,), shared by all that is taken from it.
    """

    def __init__(self, columns: Mapping[str, Column], numbers: Int64, seen: npt.NDArray[np.bool_]) -> None:
        self._columns = columns
        self._numbers = numbers
        self._seen = seen

    def __getitem__(self, name: str) -> Column:
        values = self._columns[name]
        self._seen[self._numbers] = True
        return values

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def take(self, rows: npt.NDArray[np.bool_]) -> RecordedColumns:
        """Return the columns of the rows where the mask is true, without reading them."""
        columns = {name: values[rows] for name, values in self._columns.items()}
        return RecordedColumns(columns, self._numbers[rows], self._seen)


@dataclass(frozen=True)
class RecordedPanel(Panel):
    """A panel that records which rows are read. Taking rows reads none; any use of a column reads all the panel has."""

    columns: RecordedColumns

    @classmethod
    def record(cls, panel: Panel, seen: npt.NDArray[np.bool_]) -> RecordedPanel:
        """Return the panel with its reads marked in `seen`, of shape (rows,)."""
        columns = RecordedColumns(panel.columns, np.arange(panel.rows), seen)
        return cls(columns, panel.timestamps, panel.entity_ids, panel.offsets)

    def take(self, rows: npt.NDArray[np.bool_]) -> RecordedPanel:
        """Return the rows where the mask is true, still recorded."""
        frame = self.with_columns({}).take(rows)
        return RecordedPanel(self.columns.take(rows), frame.timestamps, frame.entity_ids, frame.offsets)

    def with_columns(self, columns: Mapping[str, Column]) -> Panel:
        """Return the same rows with other columns, which were computed from values already read."""
        return Panel(dict(columns), self.timestamps, self.entity_ids, self.offsets)
