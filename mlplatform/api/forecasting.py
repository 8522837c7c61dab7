"""Forecasts of the production pair for whoever asks: all entities, some of them, a past moment, a what-if."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlplatform.calendars import LOCAL, zone_of
from mlplatform.config import ENTITY, load_experiment
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from mlplatform.registry.pairs import PairInfo


@dataclass(frozen=True)
class Forecast:
    """What was asked for.

    Attributes:
        rows: one per entity, target and step, with the columns of the job `forecast_<experiment>`, but marks as one
            text, and of a classification a column `probability_<class>` for each class.
        left_out: entities without a forecast: `entity_id`, `reason`, `found`.
    """

    experiment: str
    version: int
    pair_id: str
    time_point: str
    rows: pd.DataFrame
    left_out: pd.DataFrame

    def _repr_html_(self) -> str:
        title = f"<p>{self.experiment} version {self.version}, as known at {self.time_point}</p>"
        return f"{title}{self.rows.to_html(index=False, max_rows=20, na_rep='')}"


def forecast(
    experiment: str,
    entities: Sequence[Any] | None = None,
    *,
    at: str = "now",
    future: pd.DataFrame | None = None,
    version: int | str = "production",
    timezone: str = "UTC",
    settings: Settings | None = None,
) -> Forecast:
    """Return forecasts, or predictions of a table, from the feature store; the numbers are those of the server.

    Parameters:
        entities: default: all of the feature table.
        at: "now", or any past moment, of which only what was known then is read.
        future: rows of the known-future columns for a what-if; they stand in the place of what the store knows.
        version: a version number or alias.
        timezone: of the times in the answer: an IANA name, or `local` for that of the dataset.

    Raises:
        CalendarError: if there is no such zone.
        ConfigError, PairNotFoundError: if there is no such experiment or pair.
        FeatureStoreError: if the moment is no time, there is no feature table, or an id is of another type than its
            ids.
        DataError: if the rows of the future cannot be used.
    """
    import pandas as pd

    from mlplatform.features import parse_time_point
    from mlplatform.features.tables import present_ranges
    from mlplatform.forecasts import Answering, chunks, forecast_schema, forecast_table, left_out_table, read_scenario
    from mlplatform.registry.pairs import PairStore

    settings = settings or Settings.from_env()
    config = load_experiment(experiment, settings=settings)
    zone = config.dataset.timezone if timezone == LOCAL else zone_of(timezone).name
    store = PairStore.of_existing(settings)
    pair = store.resolve(config.registered_name, version)
    scenario = None if future is None else read_scenario(future, config.dataset, pair.contract)
    answering = Answering.of_pair(config, store, pair, settings, at, scenario)
    known = present_ranges(config.dataset, settings, parse_time_point(at))[ENTITY]
    schema = forecast_schema(
        has_text_ids=not pd.api.types.is_integer_dtype(known), coverages=answering.forecaster.coverages
    )
    wanted = known.to_numpy() if entities is None else _typed(entities, known, config.dataset.name)
    tables, left_out = [schema.empty_table()], []
    for ids in chunks(wanted, config.forecasts.chunk_entities):
        answered, without = answering.answer(ids)
        left_out += without
        if answered is not None:
            tables.append(forecast_table(pair, answered, schema))
    found = _forecast(experiment, pair, at, tables, left_out_table(left_out, schema))
    return replace(found, rows=_in_zone(found.rows, zone))


def _in_zone(rows: pd.DataFrame, zone: str) -> pd.DataFrame:
    """Return rows with their times as clocks of a zone show them, with their offset."""
    times = rows.select_dtypes("datetimetz")
    return rows.assign(**{str(name): column.dt.tz_convert(zone) for name, column in times.items()})


def _typed(entities: Sequence[Any], known: pd.Series, dataset: str) -> Any:
    """Return ids as the table has them; a shell has nothing but text.

    Raises:
        EntityTypeError: if the table's ids are whole numbers, and one of these is not written as such: 007 is not 7.
    """
    import numpy as np
    import pandas as pd

    from mlplatform.data import parse_entities
    from mlplatform.features import EntityTypeError

    if not pd.api.types.is_integer_dtype(known):
        return np.array([str(entity) for entity in entities] + [None], dtype=object)[:-1]
    ids = parse_entities(pd.Series(list(entities), dtype=object), 0.0, entity_type="integer")
    strange = np.flatnonzero(ids.inexact | ids.respelt | ids.other)
    if len(strange):
        raise EntityTypeError(
            f"dataset {dataset!r}: entity ids are whole numbers of 64 bits, but got {entities[int(strange[0])]!r}"
        )
    return ids.values


def _forecast(experiment: str, pair: PairInfo, at: str, tables: list[Any], left_out: Any) -> Forecast:
    import pyarrow as pa

    table = pa.concat_tables(tables)
    rows = table.drop_columns(["probabilities", "marks"]).to_pandas()
    rows["marks"] = [", ".join(map(_worded, marks)) for marks in table["marks"].to_pylist()]
    chances = [dict(each or ()) for each in table["probabilities"].to_pylist()]
    for label in pair.contract.classes:
        rows[f"probability_{label}"] = [each[label] for each in chances]
    return Forecast(experiment, pair.version, pair.pair_id, at, rows, left_out.to_pandas())


def _worded(mark: dict[str, Any]) -> str:
    return f"{mark['kind']} {mark['column']} ({mark['rows']} rows)"
