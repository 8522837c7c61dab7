"""A run: every entity through the production pair, chunk after chunk, into the table and what else takes its rows."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mlplatform.config import ENTITY, ExperimentConfig
from mlplatform.datamodule import TRAIN, SplitError, read_manifest
from mlplatform.features import NOW, TimePoint, parse_time_point
from mlplatform.features.tables import present_ranges
from mlplatform.forecasts.answering import Answered, Answering, LeftOut, chunks
from mlplatform.forecasts.copies import copy_table
from mlplatform.forecasts.database import upsert_table
from mlplatform.forecasts.picture import Sample
from mlplatform.forecasts.rows import forecast_schema, forecast_table, left_out_table
from mlplatform.forecasts.table import Stage, staged_run
from mlplatform.registry.pairs import PRODUCTION, PairInfo, PairStore
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ForecastReport:
    """What a run did.

    Attributes:
        pair: whose forecasts these are.
        time_point: the moment whose knowledge was read; "now" for what the online store held.
        origin: names the part of the table: the time point or, for "now", the newest moment that a forecast looked at.
        rows, entities: of the table.
        left_out: entities without a forecast, by reason.
        fallbacks: entities of which the last measured value stands in for the forecast.
        path: the folder of the origin.
        copied_to: the address of the copy; `None` if none is configured.
        database_rows: rows written to the database; `None` if none is configured.
        sample: one entity's forecast; `None` without any, and for tables.
        seconds: how long it took.
    """

    pair: PairInfo
    time_point: str
    origin: pd.Timestamp
    rows: int
    entities: int
    left_out: Mapping[str, int]
    fallbacks: int
    path: Path
    copied_to: str | None
    database_rows: int | None
    sample: Sample | None
    seconds: float


def make_forecasts(config: ExperimentConfig, settings: Settings, time_point: TimePoint = NOW) -> ForecastReport:
    """Write the forecast of every entity of the feature table from the production pair.

    Of "now" the features are those of the online store, as a server reads them. Of a moment they are what the feature
    table knew then: neither later rows nor corrections that came later.

    Raises:
        PairNotFoundError: if no pair is in production.
        PairIntegrityError: if an artifact of it is not what was registered.
        FeatureStoreError: if the time point is no time, or the feature table does not exist.
        StoreUnavailableError: if the store does not answer.
        ForecastDatabaseError, ValueError: if the database or the copy's address refuses. The table stands by then.
    """
    began = time.monotonic()
    store = PairStore(settings)
    pair = store.resolve(config.registered_name, PRODUCTION)
    answering = Answering.of_pair(config, store, pair, settings, time_point)
    run = _Run(answering, pair, _trained_until(config, pair, settings))
    with staged_run(settings, config.name) as stage:
        run.answer_all(stage)
        origin = run.origin()
        table = left_out_table(run.left_out, run.schema)
        path = stage.complete(origin, table, run.state(origin))
        targets = config.forecasts
        copied_to = None if targets.path is None else copy_table(path, config.name, targets.path)
        written = None
        if targets.database is not None:
            written = upsert_table(path, config.name, pair.version, targets.database)
    counts = run.reasons()
    if counts:
        logger.warning("%s: entities without a forecast: %s", config.name, counts)
    return ForecastReport(
        pair=pair,
        time_point=str(time_point),
        origin=origin,
        rows=run.rows,
        entities=run.entities,
        left_out=counts,
        fallbacks=run.fallbacks,
        path=path,
        copied_to=copied_to,
        database_rows=written,
        sample=run.sample,
        seconds=time.monotonic() - began,
    )


def _trained_until(config: ExperimentConfig, pair: PairInfo, settings: Settings) -> str | None:
    """Return the moment before which the pair's training rows lie, ISO 8601; `None` where that is not known."""
    try:
        border = read_manifest(settings, config.dataset.name, pair.tags.get("split_version", "")).borders.get(TRAIN)
    except SplitError:
        # The pair came from another installation.
        return None
    return None if border is None else border[1]


class _Run:
    """The counts of a run while it goes on; of the answers it keeps one sample."""

    def __init__(self, answering: Answering, pair: PairInfo, trained_until: str | None) -> None:
        self.answering = answering
        self.pair = pair
        self.trained_until = trained_until
        self.ranges = present_ranges(
            answering.config.dataset, answering.settings, parse_time_point(answering.time_point)
        )
        has_text_ids = not pd.api.types.is_integer_dtype(self.ranges[ENTITY])
        self.schema: pa.Schema = forecast_schema(has_text_ids=has_text_ids, coverages=answering.forecaster.coverages)
        self.rows = self.entities = self.fallbacks = 0
        self.left_out: list[LeftOut] = []
        self.sample: Sample | None = None
        self._newest = np.datetime64("NaT", "ns")

    def answer_all(self, stage: Stage) -> None:
        """Write the answers for every entity."""
        for ids in chunks(self.ranges[ENTITY].to_numpy(), self.answering.config.forecasts.chunk_entities):
            answered, left_out = self.answering.answer(ids)
            self.left_out += left_out
            if answered is not None:
                stage.write(self._counted(answered))
        if not self.entities:
            # A table without rows is a table, which readers need not tell from one that is not there.
            stage.write(self.schema.empty_table())

    def origin(self) -> pd.Timestamp:
        """Return what names the run's part of the table."""
        moment = parse_time_point(self.answering.time_point)
        if moment is not None:
            return moment
        if not np.isnat(self._newest):
            return pd.Timestamp(self._newest, tz="UTC")
        if self.answering.config.dataset.time_column is None:
            return pd.Timestamp.now(tz="UTC").normalize()
        newest: pd.Timestamp = self.ranges["end"].max()
        return newest

    def reasons(self) -> dict[str, int]:
        """Return how many entities were left out for each reason, the most first."""
        return dict(Counter(each.reason for each in self.left_out).most_common())

    def state(self, origin: pd.Timestamp) -> dict[str, Any]:
        """Return what the table says about itself."""
        return {
            "experiment": self.answering.config.name,
            "origin": origin.isoformat(),
            "time_point": str(self.answering.time_point),
            "version": self.pair.version,
            "pair_id": self.pair.pair_id,
            "trained_until": self.trained_until,
            "rows": self.rows,
            "entities": self.entities,
            "left_out": self.reasons(),
            "made_at": pd.Timestamp.now(tz="UTC").isoformat(timespec="seconds"),
        }

    def _counted(self, answered: Answered) -> pa.Table:
        table = forecast_table(self.pair, answered, self.schema)
        self.rows += table.num_rows
        self.entities += len(answered.origins)
        self.fallbacks += int(answered.is_fallback.sum())
        self._newest = np.fmax(self._newest, np.fmax.reduce(answered.origins))
        self.sample = self.sample or Sample.of(answered, self.pair.contract)
        return table
