"""Logged predictions joined with rows as if these stood in the feature table."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlplatform.config import TIMESTAMP, ExperimentConfig
from mlplatform.features.tables import TableFiles
from mlplatform.monitoring.error_drift import judge_errors
from mlplatform.monitoring.forecast_errors.join import write_piece
from mlplatform.monitoring.forecast_errors.pieces import SERVED, piece_path
from mlplatform.monitoring.forecast_errors.predictions import served_on
from mlplatform.monitoring.forecast_errors.truth import Truth
from mlplatform.monitoring.prediction_log import PredictionLog, ServedPredictions, prediction_days
from mlplatform.monitoring.report import ErrorDrift
from mlplatform.settings import Settings


def table_of(rows: pd.DataFrame, folder: Path) -> TableFiles:
    """Write rows as a feature table does, a file per year."""
    years = {str(year): folder / f"{year}.parquet" for year in rows[TIMESTAMP].dt.year.unique()}
    for year, path in years.items():
        own = rows[rows[TIMESTAMP].dt.year == int(year)]
        pq.write_table(pa.Table.from_pandas(own, preserve_index=False), path, coerce_timestamps="us")
    return TableFiles(rows=years, digests=dict.fromkeys(years, "rows"), replaced=())


def log_forecasts(
    settings: Settings,
    experiment: str,
    target: str,
    origins: npt.NDArray[np.datetime64],
    timestamps: npt.NDArray[np.datetime64],
    values: npt.NDArray[np.float64],
) -> None:
    """Log forecasts of entity 1 by version 1, in one request.

    Parameters:
        origins: of shape (n,), UTC.
        timestamps, values: of shape (n, steps): the moments that are forecast, UTC, and what is forecast.
    """
    log = PredictionLog(settings, experiment)
    log.append(
        ServedPredictions(
            served_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
            request_id="r",
            version=1,
            pair_id="pair",
            entity_ids=["1"] * len(values),
            origins=origins,
            targets=(target,),
            steps=np.arange(1, values.shape[1] + 1),
            timestamps=timestamps,
            values=values[:, :, None],
        )
    )
    log.close()


def join_log(config: ExperimentConfig, settings: Settings, rows: pd.DataFrame) -> None:
    """Make the pieces of all days of the log anew."""
    truth = Truth(config, settings, table_of(rows, settings.home))
    for day, text in prediction_days(settings, config.name).items():
        path = piece_path(settings, config.name, SERVED, day.isoformat())
        write_piece(path, served_on(settings, config.name, day, has_rows=False), text, config, truth)


def errors_in(config: ExperimentConfig, settings: Settings, rows: pd.DataFrame, reference: float | None) -> ErrorDrift:
    """Return what a report on version 1 says of the errors, without the sequential test."""
    join_log(config, settings, rows)
    errors, _ = judge_errors(config, settings, 1, rows[TIMESTAMP].max(), reference, None)
    return ErrorDrift(errors.predictions, errors.recent, errors.reference, errors.ratio_limit)
