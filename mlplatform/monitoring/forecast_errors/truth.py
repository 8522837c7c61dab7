"""What is known by now of the moments that were predicted, and what was known of a season before when they were.

Of forecasts it is the feature table, where steps that were not measured have no value; nothing that was filled in for a
model stands there. Of rows of tables it is the labels of the feedback log and, if configured, the rows of the dataset.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlplatform.config import ENTITY, TIMESTAMP, ExperimentConfig
from mlplatform.features.tables import TableFiles, table_files
from mlplatform.monitoring.feedback import feedback_schema, label_batches
from mlplatform.monitoring.forecast_errors.pieces import text
from mlplatform.settings import Settings

# What decides between labels of a prediction, in this order. One of its request is about nothing else, so it goes
# before one of its entity, which may be about many; then the moments; and of one moment, a row before an entity.
_LAST_WORD = "request_id IS NULL, known_at DESC, received_at DESC, feedback_id, request_row IS NULL, number"
_NOTHING = (
    "SELECT NULL::VARCHAR AS entity_id, NULL::TIMESTAMPTZ AS event_timestamp, NULL::VARCHAR AS target, "
    "NULL::DOUBLE AS truth, NULL::VARCHAR AS truth_label, NULL::TIMESTAMPTZ AS until WHERE false"
)


@dataclass(frozen=True)
class Truth:
    """What is known of an experiment's targets at one moment of the present.

    Attributes:
        files: of the feature table; `None` where labels come by feedback alone.
    """

    config: ExperimentConfig
    settings: Settings
    files: TableFiles | None

    @classmethod
    def now(cls, config: ExperimentConfig, settings: Settings) -> Truth:
        """Return what is known now.

        Raises:
            FeatureStoreError: if there is no feature table.
        """
        has_table = config.task == "forecast" or config.truth.labels_from_dataset
        return cls(config, settings, table_files(config.dataset, settings) if has_table else None)

    def text(self, first_ns: int | None, last_ns: int | None) -> str:
        """Return a text that changes when what is known of a stretch of time may have."""
        digests = (
            {name: self.files.digests.get(name) for name in self._periods(first_ns, last_ns)} if self.files else {}
        )
        return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]

    def rows(self, first_ns: int | None, last_ns: int | None) -> str:
        """Return the query of all values of targets in a stretch of time that are there."""
        if self.files is None:
            return _NOTHING
        paths = [self.files.rows[name] for name in self._periods(first_ns, last_ns)]
        return self._values(paths, "NULL::TIMESTAMPTZ", "truth IS NOT NULL OR truth_label IS NOT NULL")

    def replaced(self) -> str:
        """Return the query of values that stood before a change of the table, `until` when; null where none did."""
        return _NOTHING if self.files is None else self._values(self.files.replaced, "until", "true")

    def _values(self, paths: Iterable[Path], until: str, condition: str) -> str:
        listed = ", ".join(text(str(path)) for path in paths)
        if not listed:
            return _NOTHING
        source = f"read_parquet([{listed}], hive_partitioning = false, union_by_name = true)"
        return " UNION ALL ".join(
            f"SELECT * FROM (SELECT CAST({ENTITY} AS VARCHAR) AS entity_id, {TIMESTAMP} AS event_timestamp, "
            f"{text(name)} AS target, {self._value(name)}, {until} AS until FROM {source}) WHERE {condition}"
            for name in self.config.targets
        )

    def _value(self, target: str) -> str:
        column = '"' + target.replace('"', '""') + '"'
        if self.config.dataset.columns[target].type != "float":
            return f"NULL::DOUBLE AS truth, CAST({column} AS VARCHAR) AS truth_label"
        finite = f"CASE WHEN isfinite({column}) THEN CAST({column} AS DOUBLE) END"
        return f"{finite} AS truth, NULL::VARCHAR AS truth_label"

    def _periods(self, first_ns: int | None, last_ns: int | None) -> list[str]:
        if self.files is None:
            return []
        if first_ns is None or last_ns is None or self.config.dataset.time_column is None:
            return list(self.files.rows)
        return self.files.between(first_ns, last_ns)


def match_labels(connection: Any, config: ExperimentConfig, settings: Settings) -> str:
    """Make the table `labels` of the last word on each prediction of the table `predictions`, by its `id`.

    A label of a request goes before one of an entity alone, which counts only where the dataset has entities.

    Returns:
        A text that changes whenever what it says does.
    """
    import pyarrow as pa

    reader = pa.RecordBatchReader.from_batches(feedback_schema(), label_batches(settings, config.name))
    connection.register("arrived", reader)
    # Of one id only the first arrival counts. A label may be in the log twice, but not with another number.
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE arrived_once AS SELECT *, row_number() OVER () AS number FROM (SELECT DISTINCT "
        "ON (feedback_id, request_id, request_row, entity_id, event_timestamp) * FROM arrived ORDER BY received_at)"
    )
    connection.unregister("arrived")
    ways = [
        "l.request_id = p.request_id AND l.request_row = p.request_row",
        "l.request_id = p.request_id AND l.entity_id = p.entity_id AND l.request_row IS NULL",
    ]
    # Where the dataset has no entities, rows are called by their numbers, which are the same in every request.
    if config.dataset.entity_column is not None:
        ways.append(
            "l.request_id IS NULL AND l.entity_id = p.entity_id "
            "AND l.event_timestamp IS NOT DISTINCT FROM p.event_timestamp"
        )
    pairs = " UNION ALL ".join(f"SELECT p.id, l.* FROM predictions p JOIN arrived_once l ON {way}" for way in ways)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE labels AS SELECT id, first(value ORDER BY {_LAST_WORD}) AS value, "
        f"first(label ORDER BY {_LAST_WORD}) AS label FROM ({pairs}) GROUP BY id"
    )
    key = "p.request_id, p.request_row, p.served_at, p.entity_id, p.event_timestamp, l.value, l.label"
    (count, digest) = connection.execute(
        f"SELECT count(*), bit_xor(hash({key})) FROM labels l JOIN predictions p USING (id)"
    ).fetchone()
    return f"{count}:{digest}" if count else ""
