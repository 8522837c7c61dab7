"""Another Feast repository: `feast://path/to/feature_repo`, its rows read through its own offline store."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from mlplatform.config import DatasetConfig, Frozen, UtcDatetime, time_step
from mlplatform.data.columns import require_columns, source_columns
from mlplatform.data.errors import DataError
from mlplatform.data.sources.base import Batch, IncrementalSource, Position
from mlplatform.data.sources.cells import arrow_frame
from mlplatform.data.sources.files import local_places
from mlplatform.plugins import SOURCES
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    from feast import FeatureStore, FeatureView
    from feast.data_source import DataSource

CONFIG_FILE = "feature_store.yaml"
DUMMY_KEY = "__dummy_id"
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class FeastParams(Frozen):
    """Which rows to read.

    `features` maps columns of the dataset to features of the view where they are called differently. Rows are read in
    slices of time of length `slice`, the first from `start` or the earliest row on. `overlap` reads back beyond the
    newest row that was read, for rows that arrive late.
    """

    feature_view: str
    features: dict[str, str] = Field(default_factory=dict)
    start: UtcDatetime | None = None
    slice: str = "90D"
    overlap: str | None = None

    @field_validator("slice", "overlap")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None:
            time_step(value)
        return value


@dataclass(frozen=True)
class _View:
    """A feature view as its offline store knows it: the dataset's column names to those in the view's table."""

    store: FeatureStore
    source: DataSource
    columns: dict[str, str]
    keys: tuple[str, ...]


@SOURCES.register("feast")
class FeastSource(IncrementalSource[FeastParams]):
    """A feature view of another repository. The join key is the dataset's entity, the event time its time."""

    Params = FeastParams
    operational = frozenset({"slice", "overlap"})

    def read_since(self, dataset: DatasetConfig, settings: Settings, position: Position | None) -> Iterator[Batch]:
        """Read the rows from the position's event time on, less the overlap; see `IncrementalSource.read_since`."""
        if dataset.time_column is None:
            raise DataError(f"dataset {dataset.name!r}: time_column is missing; it takes the view's event time")
        view = self._open(dataset, settings)
        newest = _newest(position, dataset)
        now = dt.datetime.now(dt.UTC)
        start = self.params.start or EPOCH
        if newest is not None:
            start = newest.floor("us").to_pydatetime() - (
                time_step(self.params.overlap) if self.params.overlap else dt.timedelta(0)
            )
        # The times alone first: they are small, and say which slices have rows at all.
        times = self._pull(view, start, now, dataset, only_times=True)[dataset.time_column]
        while len(times):
            start = times.iloc[0].floor("us").to_pydatetime()
            end = min(start + time_step(self.params.slice), now)
            frame = self._pull(view, start, end, dataset)
            newest = max(newest or times.iloc[0], frame[dataset.time_column].iloc[-1])
            yield Batch(frame, {"event_timestamp": newest.isoformat()})
            # Stores differ in whether they include the end, so the next slice may begin with this one's last rows.
            times = times[times >= end] if end < now else times[:0]

    def _pull(
        self, view: _View, start: dt.datetime, end: dt.datetime, dataset: DatasetConfig, *, only_times: bool = False
    ) -> pd.DataFrame:
        """Return the rows between two moments in the dataset's names, ordered by event time."""
        import pandas as pd
        from feast.infra.offline_stores.offline_utils import get_offline_store_from_config

        source = view.source
        names = {} if only_times else view.columns
        try:
            job = get_offline_store_from_config(view.store.config.offline_store).pull_all_from_table_or_query(
                config=view.store.config,
                data_source=source,
                join_key_columns=list(view.keys),
                feature_name_columns=list(names.values()),
                timestamp_field=source.timestamp_field,
                created_timestamp_column=source.created_timestamp_column or None,
                start_date=start,
                end_date=end,
            )
            pulled = job.to_arrow()
        except Exception as error:  # every offline store raises errors of its own
            raise DataError(
                f"dataset {dataset.name!r}: the offline store behind {dataset.source.uri!r} failed on feature view "
                f"{self.params.feature_view!r}: {type(error).__name__}. Read it with Feast itself to see why"
            ) from error
        created = [source.created_timestamp_column] if source.created_timestamp_column else []
        frame = arrow_frame(pulled)
        frame[source.timestamp_field] = pd.to_datetime(frame[source.timestamp_field], utc=True)
        # Of rows for the same moment the one that was created last comes last, and so wins.
        frame = frame.sort_values([source.timestamp_field, *created], kind="stable", ignore_index=True)
        taken = {dataset.time_column: frame[source.timestamp_field]}
        if dataset.entity_column is not None and not only_times:
            taken[dataset.entity_column] = frame[view.keys[0]]
        return pd.DataFrame(taken | {column: frame[name] for column, name in names.items()})

    def _open(self, dataset: DatasetConfig, settings: Settings) -> _View:
        from mlplatform.feast_import import import_feast

        import_feast()
        from feast import FeatureStore, FeatureView
        from feast.errors import FeatureViewNotFoundException

        store = FeatureStore(repo_path=str(_repository(dataset, settings)))
        try:
            view = store.get_feature_view(self.params.feature_view)
        except FeatureViewNotFoundException as error:
            known = ", ".join(sorted(view.name for view in store.list_batch_feature_views())) or "none"
            raise DataError(
                f"dataset {dataset.name!r}: {dataset.source.uri!r} has no feature view {self.params.feature_view!r}; "
                f"known: {known}. Correct source.options.feature_view, or run feast apply there"
            ) from error
        if not isinstance(view, FeatureView) or view.batch_source is None:
            raise DataError(
                f"dataset {dataset.name!r}: feature view {self.params.feature_view!r} has no batch source to read"
            )
        return self._described(store, view, view.batch_source, dataset)

    def _described(self, store: FeatureStore, view: FeatureView, source: DataSource, dataset: DatasetConfig) -> _View:
        keys = tuple(field.name for field in view.entity_columns if field.name != DUMMY_KEY)
        expected = 0 if dataset.entity_column is None else 1
        if len(keys) != expected:
            raise DataError(
                f"dataset {dataset.name!r}: feature view {view.name!r} has {len(keys)} join keys "
                f"({', '.join(keys) or 'none'}), but a dataset with entity_column {dataset.entity_column!r} needs "
                f"{expected}; set entity_column, or make a view with one join key"
            )
        wanted = [*dataset.columns, *([dataset.removed_column] if dataset.removed_column else [])]
        features = {column: self.params.features.get(column, column) for column in wanted}
        known = [field.name for field in view.features]
        others = [name for name in known if name not in features and name not in features.values()]
        inside = [column for column, feature in features.items() if feature in known] + others
        require_columns(
            [name for name in source_columns(dataset) if name not in wanted] + inside,
            dataset,
            f"feature view {view.name!r} of {dataset.source.uri!r}",
        )
        in_table = {feature: name for name, feature in source.field_mapping.items()}
        columns = {column: in_table.get(feature, feature) for column, feature in features.items()}
        return _View(store, source, columns, tuple(in_table.get(key, key) for key in keys))


def _repository(dataset: DatasetConfig, settings: Settings) -> Path:
    places = local_places(dataset.source.uri.partition("://")[2], settings)
    found = next((place for place in places if (place / CONFIG_FILE).is_file()), None)
    if found is None:
        raise DataError(
            f"dataset {dataset.name!r}: {dataset.source.uri!r} is not a Feast repository: no {CONFIG_FILE} in "
            f"{', '.join(str(place) for place in places)}; expected feast://path/to/feature_repo"
        )
    return found


def _newest(position: Position | None, dataset: DatasetConfig) -> pd.Timestamp | None:
    import pandas as pd

    if position is None:
        return None
    try:
        return pd.Timestamp(position["event_timestamp"])
    except (KeyError, ValueError) as error:
        raise DataError(
            f"dataset {dataset.name!r}: the stored position {position} is not an event time; read the dataset in full"
        ) from error
