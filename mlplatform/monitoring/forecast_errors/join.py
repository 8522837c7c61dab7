"""One piece of the table: predictions beside what happened, the naive forecast of the same moment, and the errors.

Errors are predictions less truth, so their mean is the bias. The pinball loss is the mean of those of both bounds at
their quantile levels. The naive forecast is the last value one or more whole seasons before that the prediction could
have known, as it was known then: not as it was corrected later. Of classes the error is 1 where the class is wrong.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlplatform.config import ExperimentConfig
from mlplatform.monitoring.feedback import labels_text
from mlplatform.monitoring.forecast_errors.pieces import MadeFrom, footer, text
from mlplatform.monitoring.forecast_errors.predictions import of_piece, prediction_schema
from mlplatform.monitoring.forecast_errors.truth import Truth, match_labels
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

if TYPE_CHECKING:
    import pyarrow as pa

# What a join may hold in memory; beyond, it spills to the disk.
MEMORY_LIMIT = "512MB"
# A prediction that was logged twice, as after a copy of a file, is one.
_KEY = (
    "source", "request_id", "request_row", "served_at", "version", "arm", "entity_id", "origin", "target", "step",
)  # fmt: skip
_SAME = ", ".join(_KEY)

# Of the columns lower, upper and coverage of an interval.
IS_INSIDE = "truth >= lower AND truth <= upper"
PINBALL = (
    "(greatest((truth - lower) * (1 - coverage) / 2, (lower - truth) * (1 + coverage) / 2) "
    "+ greatest((truth - upper) * (1 + coverage) / 2, (upper - truth) * (1 - coverage) / 2)) / 2"
)


def rules_of(config: ExperimentConfig) -> dict[str, Any]:
    """Return what of the configuration decides how predictions and truth come together."""
    is_forecast = config.task == "forecast"
    rules = {
        "targets": list(config.targets),
        "season": config.season,
        "step_s": config.dataset.nominal_step.total_seconds() if is_forecast else 0.0,
        "labels_from_dataset": config.truth.labels_from_dataset,
    }
    if not is_forecast:
        # Pieces of earlier releases lack it, and are made anew: in them a label by entity could be of any request.
        rules["labels_by_entity"] = config.dataset.entity_column is not None
    if is_forecast and not config.dataset.calendar.is_plain:
        rules["calendar"] = config.dataset.calendar.text
    return rules


@contextlib.contextmanager
def database() -> Iterator[Any]:
    """Yield a connection to an empty database of its own, which takes bounded memory."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix="errors-", ignore_cleanup_errors=True) as spill:
        config: dict[str, Any] = {
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": spill,
            "preserve_insertion_order": "false",
            "autoinstall_known_extensions": "false",
        }
        with duckdb.connect(config=config) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection


def write_piece(
    path: Path,
    predictions: Iterable[pa.RecordBatch],
    predictions_text: str,
    config: ExperimentConfig,
    truth: Truth,
    kept: Path | None = None,
) -> MadeFrom:
    """Join predictions with what is known of them and put the piece in its place.

    Parameters:
        kept: the piece of before, whose predictions and labels stay where the logs have lost them, as they do when
            they become too old; `None` where the predictions take the place of those of before.

    Raises:
        OSError, duckdb.Error: if the disk refuses; the piece of before stays then.
    """
    with database() as connection:
        first, last, naive_first = _load(connection, predictions, config, kept)
        labels = ""
        if config.task != "forecast":
            labels = match_labels(connection, config, truth.settings)
            if kept is not None:
                _keep_labels(connection, kept)
        else:
            connection.execute("CREATE TEMP TABLE labels (id BIGINT, value DOUBLE, label VARCHAR)")
        connection.execute(f"CREATE TEMP VIEW truth AS {truth.rows(first, last)}")
        connection.execute(f"CREATE TEMP VIEW past AS {truth.rows(naive_first, last)}")
        connection.execute(f"CREATE TEMP VIEW replaced AS {truth.replaced()}")
        made_from = MadeFrom(predictions_text, truth.text(first, last), labels, first, last, rules_of(config))
        with atomic_file(path) as temporary:
            connection.execute(
                f"COPY ({_errors(config)}) TO {text(str(temporary))} (FORMAT parquet, {footer(made_from)})"
            )
    return made_from


def labels_of_piece(path: Path, config: ExperimentConfig, settings: Settings) -> str:
    """Return what a piece would say about its labels if it were made now."""
    if not labels_text(settings, config.name):
        return ""
    with database() as connection:
        columns = "request_id, request_row, served_at, entity_id, event_timestamp"
        connection.execute(
            f"CREATE TEMP TABLE predictions AS SELECT {columns}, row_number() OVER () AS id "
            f"FROM read_parquet({text(str(path))})"
        )
        return match_labels(connection, config, settings)


def _load(
    connection: Any, predictions: Iterable[pa.RecordBatch], config: ExperimentConfig, kept: Path | None
) -> tuple[int | None, int | None, int | None]:
    """Make the table `predictions`; return its first and last moment and the first of the naive forecasts, in ns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def take(batches: Iterable[pa.RecordBatch], statement: str) -> None:
        connection.register("incoming", pa.RecordBatchReader.from_batches(prediction_schema(), iter(batches)))
        connection.execute(f"{statement} SELECT DISTINCT ON ({_SAME}) * FROM incoming")
        connection.unregister("incoming")

    take(predictions, "CREATE TEMP TABLE given AS")
    (count,) = connection.execute("SELECT count(*) FROM given").fetchone()
    if kept is not None and count < pq.read_metadata(kept).num_rows:
        # A log grows or is deleted, and that may be cut off half way.
        take(of_piece(kept), "INSERT INTO given")
        connection.execute(f"CREATE OR REPLACE TEMP TABLE given AS SELECT DISTINCT ON ({_SAME}) * FROM given")
    _load_seasons(connection, config)
    connection.execute(
        "CREATE TEMP TABLE predictions AS SELECT given.*, row_number() OVER () AS id, naive_time FROM given "
        "LEFT JOIN seasons USING (event_timestamp, step)"
    )
    connection.execute("DROP TABLE given")
    moments = "epoch_ns(min(event_timestamp)), epoch_ns(max(event_timestamp)), epoch_ns(min(naive_time))"
    first, last, naive_first = connection.execute(f"SELECT {moments} FROM predictions").fetchone()
    return first, last, naive_first


def _keep_labels(connection: Any, kept: Path) -> None:
    """Add to the table `labels` those that a piece has of predictions that no label is left of."""
    is_same = " AND ".join(f"p.{name} IS NOT DISTINCT FROM k.{name}" for name in _KEY)
    connection.execute(
        "INSERT INTO labels SELECT p.id, k.truth, k.truth_label "
        f"FROM predictions p JOIN read_parquet({text(str(kept))}) k ON {is_same} "
        "WHERE k.truth_from = 'feedback' AND p.id NOT IN (SELECT id FROM labels)"
    )


def _load_seasons(connection: Any, config: ExperimentConfig) -> None:
    """Make the table `seasons`: of every moment and step the moment as many whole seasons before as the step needs."""
    import pyarrow as pa

    found = connection.execute("SELECT DISTINCT event_timestamp, step FROM given").to_arrow_table()
    moments = found["event_timestamp"].cast(pa.timestamp("ns", tz="UTC"))
    if config.task == "forecast":
        steps = found["step"].to_numpy().astype(np.int64)
        back = -(-steps // config.season) * config.season
        naive = config.dataset.calendar.shift(moments.cast(pa.int64()).to_numpy(), -back)
        moments = pa.chunked_array([pa.array(naive).cast(pa.timestamp("ns", tz="UTC"))])
    connection.register("found", found.append_column("naive_time", moments))
    connection.execute("CREATE TEMP TABLE seasons AS SELECT * FROM found")
    connection.unregister("found")


def _errors(config: ExperimentConfig) -> str:
    same_moment = "t.event_timestamp = p.event_timestamp"
    if config.dataset.time_column is None:
        # Rows without a time have the same one in every table.
        same_moment = "true"
    of_prediction = ", ".join(f"p.{name}" for name in prediction_schema().names)
    return f"""
        WITH known AS (
            SELECT {of_prediction}, p.naive_time, coalesce(l.value, t.truth) AS truth,
                coalesce(l.label, t.truth_label) AS truth_label,
                CASE WHEN l.id IS NOT NULL THEN 'feedback'
                    WHEN t.entity_id IS NOT NULL THEN 'dataset' END AS truth_from
            FROM predictions p LEFT JOIN labels l USING (id)
            LEFT JOIN truth t ON t.entity_id = p.entity_id AND t.target = p.target AND {same_moment}
        ), naive AS (
            SELECT p.*, n.truth AS naive_now FROM known p LEFT JOIN past n
            ON n.entity_id = p.entity_id AND n.target = p.target AND n.event_timestamp = p.naive_time
        ), judged AS (
            SELECT n.* EXCLUDE (naive_time, naive_now),
                CASE WHEN r.until IS NULL THEN n.naive_now ELSE r.truth END AS baseline
            FROM naive n ASOF LEFT JOIN replaced r ON r.entity_id = n.entity_id AND r.target = n.target
                AND r.event_timestamp = n.naive_time AND n.known_at < r.until
        )
        SELECT *, CASE WHEN label IS NULL THEN value - truth END AS error,
            CASE WHEN label IS NULL THEN abs(value - truth) ELSE CAST(label <> truth_label AS DOUBLE) END
                AS absolute_error,
            {IS_INSIDE} AS is_inside, {PINBALL} AS pinball,
            abs(baseline - truth) AS baseline_error
        FROM judged
    """
