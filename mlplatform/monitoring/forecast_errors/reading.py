"""What is read from the table: the live error of a pair, and summaries of it beside the naive forecast.

What stood in for a forecast, or was made from less than `observation.min_observed` of its lookback, is no error of the
model and does not count. A forecast that was asked for many times counts once, as it was answered last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from mlplatform.config import ExperimentConfig
from mlplatform.monitoring.forecast_errors.join import IS_INSIDE, PINBALL, database
from mlplatform.monitoring.forecast_errors.pieces import pieces, text
from mlplatform.settings import Settings
from mlplatform.state_files import warn_of

Taken = TypeVar("Taken")

KEYS = ("source", "version", "pair_id", "arm", "target", "step", "day", "coverage")
# Quantiles that the scores of a moment are told by.
SCORE_POINTS = 11
_NO_FACTORS = "SELECT NULL::TIMESTAMPTZ AS since, NULL::INTEGER AS step, NULL::DOUBLE AS factor WHERE false"
# What makes two predictions the same forecast.
_SAME = {
    "forecast": "entity_id, target, origin, event_timestamp, version, arm",
    "table": "request_id, request_row, served_at, entity_id, target, version, arm",
}
_KEPT = (
    "source", "pair_id", "step", "absolute_error", "error", "pinball", "is_inside", "coverage",
    "baseline_error", "truth", "value", "lower", "upper", "intervals",
)  # fmt: skip


def recent_error(
    config: ExperimentConfig,
    settings: Settings,
    version: int,
    since: pd.Timestamp,
    until: pd.Timestamp,
) -> tuple[int, float | None]:
    """Return how many predictions of a pair came true after `since`, and their mean absolute error; `None` of none.

    The moment of a forecast is the one that is predicted; of rows of a table, when they were served.

    Parameters:
        until: leaves out later moments.
    """
    query = f"SELECT count(*), avg(absolute_error) FROM counted WHERE version = {version}"
    count, error = _one(config, settings, query, since, until)
    return int(count), None if error is None else float(error)


def block_errors(
    config: ExperimentConfig,
    settings: Settings,
    version: int,
    length: pd.Timedelta,
    since: pd.Timestamp | None,
    until: pd.Timestamp,
) -> pd.DataFrame:
    """Return the mean absolute error of a pair in each block of time between two moments, oldest first.

    Blocks end at multiples of their length since 1970, so that every look cuts the same ones; only those that are over
    by `until` are there, and only those that have a prediction.

    Returns:
        `end` (UTC) and `error`.
    """
    micro = length // pd.Timedelta(1, "us")
    end = f"CAST(ceil(epoch_us(moment) / {micro}) AS BIGINT) * {micro}"
    query = (
        f'SELECT make_timestamptz({end}) AS "end", avg(absolute_error) AS error FROM counted WHERE version = {version} '
        f"GROUP BY 1 HAVING make_timestamptz({end}) <= {_moment(until)} ORDER BY 1"
    )
    return _frame(config, settings, query, since, until)


def summarise_errors(
    config: ExperimentConfig,
    settings: Settings,
    by: Sequence[str],
    since: pd.Timestamp | None = None,
    until: pd.Timestamp | None = None,
) -> pd.DataFrame:
    """Return what the table says of predictions whose moments lie between two, grouped.

    Parameters:
        by: of `KEYS`; `day` is that of the moment, in UTC. By `coverage` a prediction counts once for every interval
            that it has, and not at all without one.

    Returns:
        The keys, then `count` (of predictions whose truth is known), `error` (mean absolute), `bias` (mean of
        prediction less truth), `pinball` and `covered` (of those with an interval), `coverage` (what the intervals are
        meant to cover), and, on the moments for which there is a naive forecast, `naive_count`, `naive_error` and
        `error_beside_naive`, the own error on them. Intervals are the main ones, except by `coverage`.

    Raises:
        ValueError: if there is no such key.
    """
    if unknown := [key for key in by if key not in KEYS]:
        raise ValueError(f"errors cannot be grouped by {', '.join(unknown)}; possible are {', '.join(KEYS)}")
    keys = ", ".join("CAST(moment AS DATE) AS day" if key == "day" else key for key in by)
    has_naive = "baseline_error IS NOT NULL"
    meant = "" if "coverage" in by else "avg(coverage) FILTER (is_inside IS NOT NULL) AS coverage, "
    query = (
        f"SELECT {keys}, count(*) AS count, avg(absolute_error) AS error, avg(error) AS bias, avg(pinball) AS pinball, "
        f"avg(CAST(is_inside AS DOUBLE)) AS covered, {meant}"
        f"count(*) FILTER ({has_naive}) AS naive_count, avg(baseline_error) AS naive_error, "
        f"avg(absolute_error) FILTER ({has_naive}) AS error_beside_naive "
        f"FROM {'of_intervals' if 'coverage' in by else 'counted'} GROUP BY ALL ORDER BY ALL"
    )
    return _frame(config, settings, query, since, until)


def newest_moment(config: ExperimentConfig, settings: Settings) -> pd.Timestamp | None:
    """Return the newest moment that the table has a prediction of, by the hour or finer; `None` for an empty table."""
    newest = max((made_from.last_ns or 0 for _, made_from in pieces(settings, config.name)), default=0)
    return pd.Timestamp(newest, tz="UTC") if newest else None


def followed_forecasts(
    config: ExperimentConfig, settings: Settings, version: int, entity: str, since: pd.Timestamp
) -> pd.DataFrame:
    """Return what a pair forecast of an entity, beside what came true: of every moment the newest such forecast.

    Parameters:
        entity: its id as text.
        since: leaves out moments before.

    Returns:
        `target`, `moment` (UTC), `value`, `lower`, `upper` (of the main interval; missing without one), `truth` and
        `origin` (the newest row it was made from), by target and moment.
    """
    kept = ("value", "lower", "upper", "truth", "origin")
    newest = ", ".join(f"{name}: {name}" for name in kept)
    query = (
        f"SELECT target, moment, unnest(arg_max({{{newest}}}, origin)) FROM counted "
        f"WHERE version = {version} AND entity_id = {text(entity)} GROUP BY target, moment ORDER BY target, moment"
    )
    return _frame(config, settings, query, since, None)


def interval_scores(
    config: ExperimentConfig,
    settings: Settings,
    pair_id: str,
    coverage: float,
    history: Sequence[tuple[str, Sequence[float]]],
    moments: int,
) -> pd.DataFrame:
    """Return, per moment and step, how far truths lay from the points, in units of the calibrated distance to a bound.

    Parameters:
        coverage: of the intervals.
        history: since when (ISO 8601) which scales per step the intervals were made by; none before the first.
        moments: the newest so many.

    Returns:
        `moment` (UTC), `step` and `scores`: `SCORE_POINTS` quantiles of those of all entities and targets.
    """
    points = ", ".join(f"{(place + 0.5) / SCORE_POINTS:.6f}" for place in range(SCORE_POINTS))
    rows = [
        (pd.Timestamp(since).tz_convert("UTC").value // 1000, step, factor)
        for since, scales in history
        for step, factor in enumerate(scales, start=1 if config.task == "forecast" else 0)
    ]
    listed = ", ".join(f"(make_timestamptz({since}), {step}, {factor!r})" for since, step, factor in rows)
    factors = f"SELECT * FROM (VALUES {listed}) AS v(since, step, factor)" if rows else _NO_FACTORS
    query = f"""
        WITH judged AS (
            SELECT c.moment, c.step, greatest((truth - value) / (upper - value), (value - truth) / (value - lower))
                * coalesce(f.factor, 1.0) AS score
            FROM of_intervals c ASOF LEFT JOIN ({factors}) f ON c.step = f.step AND c.made_at >= f.since
            WHERE pair_id = {text(pair_id)} AND coverage = {coverage!r} AND is_inside IS NOT NULL
        )
        SELECT moment, step, quantile_cont(score, [{points}]) AS scores FROM judged WHERE isfinite(score)
        AND moment IN (SELECT DISTINCT moment FROM judged ORDER BY moment DESC LIMIT {moments})
        GROUP BY moment, step ORDER BY moment, step
    """
    return _frame(config, settings, query, None, None)


def _frame(
    config: ExperimentConfig, settings: Settings, query: str, since: pd.Timestamp | None, until: pd.Timestamp | None
) -> pd.DataFrame:
    def take(answer: Any) -> pd.DataFrame:
        frame: pd.DataFrame = answer.df()
        return frame

    return _asked(config, settings, query, since, until, take)


def _one(
    config: ExperimentConfig, settings: Settings, query: str, since: pd.Timestamp | None, until: pd.Timestamp | None
) -> tuple[Any, ...]:
    def take(answer: Any) -> tuple[Any, ...]:
        row: tuple[Any, ...] = answer.fetchone()
        return row

    return _asked(config, settings, query, since, until, take)


def _asked(
    config: ExperimentConfig,
    settings: Settings,
    query: str,
    since: pd.Timestamp | None,
    until: pd.Timestamp | None,
    take: Callable[[Any], Taken],
) -> Taken:
    """Return what the table answers; pieces that are damaged behind their footer are put aside, and it is asked again.

    The next update makes them anew from their predictions, where these are still there.
    """
    import duckdb

    files = _files(settings, config, since, until)
    try:
        return _asked_of(files, config, query, since, until, take)
    except duckdb.Error:
        whole = [path for path in files if _is_whole(path)]
        if whole == files:
            raise
    return _asked_of(whole, config, query, since, until, take)


def _asked_of(
    files: Sequence[Path],
    config: ExperimentConfig,
    query: str,
    since: pd.Timestamp | None,
    until: pd.Timestamp | None,
    take: Callable[[Any], Taken],
) -> Taken:
    with database() as connection:
        _prepare(connection, files, config, since, until)
        return take(connection.execute(query))


def _is_whole(path: Path) -> bool:
    """Return whether a piece can be read to its end; one that cannot is put aside."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for _ in pq.ParquetFile(path).iter_batches():
            pass
    except (pa.ArrowInvalid, OSError) as error:
        # With a number it is the disk that refuses, which says nothing about the piece.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        aside = path.with_name(f"{path.name}.damaged")
        warn_of(path, f"is damaged ({error}) and is put aside as {aside.name}; the next update makes it again")
        with contextlib.suppress(OSError):
            path.rename(aside)
        return False
    return True


def _prepare(
    connection: Any,
    files: Sequence[Path],
    config: ExperimentConfig,
    since: pd.Timestamp | None,
    until: pd.Timestamp | None,
) -> None:
    """Make two views: `counted` of the predictions that count, each once, with their `moment`; and `of_intervals`.

    That has each of them once for every interval that it has, with the columns of that one for those of the main one.
    """
    same = _SAME["forecast" if config.task == "forecast" else "table"]
    moment = "event_timestamp" if config.task == "forecast" else "served_at"
    wanted = [
        "absolute_error IS NOT NULL",
        "NOT coalesce(is_fallback, false)",
        f"NOT coalesce(observed < {config.observation.min_observed}, false)",
    ]
    wanted += [f"{moment} > {_moment(since)}"] if since is not None else []
    wanted += [f"{moment} <= {_moment(until)}"] if until is not None else []
    if files:
        listed = ", ".join(text(str(path)) for path in files)
        rows = f"SELECT * FROM read_parquet([{listed}], hive_partitioning = false, union_by_name = true)"
        # Pieces of earlier versions have no list of intervals.
        source = f"({rows} UNION ALL BY NAME {_NO_ROWS})"
    else:
        source = f"({_NO_ROWS})"
    # As one value: each by itself would be the last one that is there.
    kept = ", ".join(f"{name}: {name}" for name in _KEPT if name not in same.split(", ")) + ", made_at: served_at"
    connection.execute(
        f"CREATE TEMP VIEW counted AS SELECT {same}, unnest(arg_max({{{kept}}}, served_at)), "
        f"any_value({moment}) AS moment FROM {source} WHERE {' AND '.join(wanted)} GROUP BY {same}"
    )
    connection.execute(
        f"CREATE TEMP VIEW of_intervals AS SELECT *, {IS_INSIDE} AS is_inside, {PINBALL} AS pinball FROM ("
        "SELECT * EXCLUDE (coverage, lower, upper, intervals, is_inside, pinball), unnest(coalesce(intervals, "
        "[{coverage: coverage, lower: lower, upper: upper}]), recursive := true) FROM counted) "
        "WHERE coverage IS NOT NULL"
    )


_NO_ROWS = "SELECT " + ", ".join(
    f"NULL::{kind} AS {name}"
    for kind, names in {
        "VARCHAR": ("source", "request_id", "pair_id", "arm", "entity_id", "target"),
        "BIGINT": ("version",),
        "INTEGER": ("step", "request_row"),
        "TIMESTAMPTZ": ("served_at", "origin", "event_timestamp"),
        "BOOLEAN": ("is_fallback", "is_inside"),
        "DOUBLE": ("observed", "absolute_error", "error", "pinball", "coverage", "baseline_error", "truth", "value",
                   "lower", "upper"),
        "STRUCT(coverage DOUBLE, lower DOUBLE, upper DOUBLE)[]": ("intervals",),
    }.items()
    for name in names
) + " WHERE false"  # fmt: skip


def _files(
    settings: Settings, config: ExperimentConfig, since: pd.Timestamp | None, until: pd.Timestamp | None
) -> list[Path]:
    """Return the pieces that can have rows between two moments."""
    found = []
    for path, made_from in pieces(settings, config.name):
        if config.task == "forecast" and made_from.first_ns is not None and made_from.last_ns is not None:
            is_later = until is not None and made_from.first_ns > until.value
            is_earlier = since is not None and made_from.last_ns <= since.value
            if is_later or is_earlier:
                continue
        found.append(path)
    return found


def _moment(moment: pd.Timestamp) -> str:
    """Return a literal of SQL; to the microsecond, as the table has it."""
    return f"make_timestamptz({moment.tz_convert('UTC').value // 1000})"
