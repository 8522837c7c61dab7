"""The as-of store answers what Feast's own file stores answer, on random cases; and each deliberate difference.

The cases keep clear of the differences that the store's docstring names, and of what breaks in Feast's stores:

- dask raises on times that are not in UTC if no row of a view matches, so its cases are in UTC;
- dask drops entity rows that agree in the keys of the first view and in time, so its cases have none;
- dask breaks ties of event time by a sort that is not stable, so its cases have no ties;
- duckdb joins on the renamed keys only if a join-key map names some of a view's keys, so its maps name all.
"""

from __future__ import annotations

import datetime as dt
import itertools
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import Entity, FeatureView, Field
from feast.infra.offline_stores.dask import DaskOfflineStore
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore
from feast.types import Int64
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from ibis.common.exceptions import IbisError

from mlplatform.features.asof.store import AsOfOfflineStore
from mlplatform_tests.features.asof_yard import (
    ASOF,
    KEY,
    SITE,
    START,
    asked,
    config,
    join,
    machines,
    minute,
    values,
    view,
    view_of,
)

PEERS = {"dask": DaskOfflineStore, "duckdb": DuckDBOfflineStore}
FEATURES = [Field(name="value", dtype=Int64), Field(name="size", dtype=Int64)]
FAST = hypothesis_settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # a case takes a tenth of a second and more, too long to look for a smaller one
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
_files = itertools.count()

# machine, site, minute, creation minute, value, size
Row = tuple[int | None, str, int, int | None, float | None, int]
# machine, other machine, site, minute
Asked = tuple[int | None, int, str, int]


@dataclass(frozen=True)
class ViewCase:
    """A feature view in the making."""

    keys: tuple[Entity, ...]
    rows: tuple[Row, ...]
    has_created: bool
    ttl: dt.timedelta | None
    zone: str | None
    unit: str
    has_mapped_names: bool
    has_other_machine: bool

    @property
    def machine(self) -> str:
        return "other_id" if self.has_other_machine else "machine_id"

    def build(self, folder: Path, position: int) -> FeatureView:
        frame = machines(self.rows, ("machine_id", "site_id", "at", "created", "value", "size"))
        for name in ("at", "created"):
            frame[name] = frame[name].dt.tz_convert(self.zone).dt.as_unit(self.unit)
        keys = [entity.join_key for entity in self.keys]
        columns = [*keys, "at", *(["created"] if self.has_created else []), "value", "size"]
        frame = frame[columns].astype({name: kind for name, kind in (("machine_id", "Int64"),) if name in columns})
        mapping = {"value": "amount", "at": "when"} if self.has_mapped_names else {}
        fields = [Field(name=mapping.get(field.name, field.name), dtype=Int64) for field in FEATURES]
        built = view(
            folder,
            frame,
            name=f"view{position}x{next(_files)}",
            entities=self.keys,
            features=fields,
            ttl=self.ttl,
            timestamp_field=mapping.get("at", "at"),
            created_timestamp_column="created" if self.has_created else "",
            field_mapping=mapping,
        ).with_name(f"view{position}")
        return built.with_join_key_map({"machine_id": "other_id"}) if self.has_other_machine else built

    def loses(self, row: Asked) -> bool:
        """Whether there are feature rows for an entity row, but none that is alive."""
        machine = row[1] if self.has_other_machine else row[0]
        wanted = {KEY.join_key: machine, SITE.join_key: row[2]}
        own = [each for each in self.rows if all(_key(each, key) == wanted[key.join_key] for key in self.keys)]
        limit = self.ttl / dt.timedelta(minutes=1) if self.ttl else float("inf")
        return bool(own) and not any(0 <= row[3] - each[2] <= limit for each in own)


def _key(row: Row, entity: Entity) -> Any:
    return row[0] if entity is KEY else row[1]


def _rows(draw: st.DrawFn, keys: Sequence[Entity], peer: str) -> tuple[Row, ...]:
    is_dask = peer == "dask"
    key = st.integers(0, 4) if is_dask else st.integers(0, 4) | st.none()
    created = st.none() | st.sampled_from([0, 1, 2, 14])
    row = st.tuples(key, st.sampled_from("ab"), st.integers(0, 12), created, st.none() | st.integers(0, 99).map(float))

    def same(each: tuple[Any, ...]) -> Any:
        own = (each[0] if KEY in keys else None, each[1] if SITE in keys else None, each[2])
        return own if is_dask else (*own, each[3])

    drawn = draw(st.lists(row, min_size=5, max_size=40, unique_by=same))
    return tuple((*each, number) for number, each in enumerate(drawn))


@st.composite
def view_cases(draw: st.DrawFn, peer: str) -> ViewCase:
    keys = draw(st.sampled_from([(KEY,), (SITE,), (KEY, SITE)]))
    rows = _rows(draw, keys, peer)
    # Two rows that differ in their creation time only are a tie without it.
    has_created = draw(st.booleans()) or len({(*(_key(row, key) for key in keys), row[2]) for row in rows}) < len(rows)
    return ViewCase(
        keys=keys,
        rows=rows,
        has_created=has_created,
        ttl=draw(st.none() | st.integers(0, 6).map(lambda minutes: dt.timedelta(minutes=minutes))),
        zone=draw(st.sampled_from(["UTC", *(["America/New_York", None] if peer == "duckdb" else [])])),
        unit=draw(st.sampled_from(["ms", "us", "ns"])),
        has_mapped_names=draw(st.booleans()),
        has_other_machine=KEY in keys and (peer == "dask" or keys == (KEY,)) and draw(st.booleans()),
    )


@st.composite
def cases(draw: st.DrawFn, peer: str) -> tuple[list[ViewCase], pd.DataFrame]:
    views = draw(st.lists(view_cases(peer), min_size=2, max_size=3))
    key = st.integers(0, 5) if peer == "dask" else st.integers(0, 5) | st.none()
    row = st.tuples(key, st.integers(0, 5), st.sampled_from("abc"), st.integers(-1, 15))
    rows = draw(st.lists(row, min_size=20, max_size=60))
    first = views[0]
    if peer == "dask":
        kept = {
            (row[1] if first.machine == "other_id" else row[0], row[2], row[3]): row
            for row in rows
            if not any(each.loses(row) for each in views)
        }
        by_first = {tuple(_first_key(first, row)): row for row in kept.values()}
        rows = list(by_first.values()) or [(9, 9, "z", 0)]
    frame = pd.DataFrame(rows, columns=["machine_id", "other_id", "site_id", "at"]).astype({"machine_id": "Int64"})
    frame["event_timestamp"] = pd.to_datetime([minute(moment) for moment in frame.pop("at")], utc=True).tz_convert(
        draw(st.sampled_from(["UTC", "Asia/Tokyo"]))
    )
    return views, frame.assign(number=range(len(frame)))


def _first_key(first: ViewCase, row: Asked) -> Iterator[Any]:
    for entity in first.keys:
        yield row[2] if entity is SITE else row[1] if first.has_other_machine else row[0]
    yield row[3]


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("known_by_then", [False, True])
def test_joins_agree(tmp_path: Path, peer: str, known_by_then: bool) -> None:
    @given(case=cases(peer))
    @FAST
    def check(case: tuple[list[ViewCase], pd.DataFrame]) -> None:
        views = [each.build(tmp_path, position) for position, each in enumerate(case[0])]
        refs = [f"{each.projection.name_to_use()}:{field.name}" for each in views for field in each.features]
        theirs, ours = (
            _quiet_join(
                tmp_path,
                views,
                refs,
                case[1].copy(),
                full_feature_names=True,
                filter_by_created_timestamp=known_by_then,
                **store,
            )
            for store in ({"store": PEERS[peer], "store_type": peer}, {})
        )
        assert ours["number"].tolist() == case[1]["number"].tolist()
        theirs = theirs.sort_values("number", ignore_index=True)
        assert theirs["number"].tolist() == ours["number"].tolist()
        for name in (name for name in ours if "__" in name):
            assert values(ours, name) == values(theirs, name)

    check()


def _quiet_join(*arguments: Any, **options: Any) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (FutureWarning, DeprecationWarning))
        return join(*arguments, **options)


@pytest.mark.parametrize("peer", PEERS)
def test_pulls_agree(tmp_path: Path, peer: str) -> None:
    bounds = st.tuples(st.integers(-1, 13), st.integers(-1, 13)).map(sorted)

    @given(case=view_cases(peer), bounds=bounds)
    @FAST
    def check(case: ViewCase, bounds: list[int]) -> None:
        source = case.build(tmp_path, 0).batch_source
        keys = [entity.join_key for entity in case.keys]
        created = "created" if case.has_created else None
        start, end = (minute(bound).to_pydatetime() for bound in bounds)
        for pull in ("pull_latest_from_table_or_query", "pull_all_from_table_or_query"):
            frames = []
            for kind, store in ((peer, PEERS[peer]), (ASOF, AsOfOfflineStore)):
                arguments = (config(tmp_path, kind), source, keys, ["value", "size"], "at", created, start, end)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", (FutureWarning, DeprecationWarning))
                    frames.append(getattr(store, pull)(*arguments).to_df())
            theirs, ours = (frame.sort_values("size", ignore_index=True) for frame in frames)
            assert set(ours) == set(theirs)
            for name in [*keys, "value", "size"]:
                assert values(ours, name) == values(theirs, name)
            for name in ("at", *([created] if created else [])):
                assert values(_in_utc(ours, name), name) == values(_in_utc(theirs, name), name)

    check()


def _in_utc(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    return pd.DataFrame({name: pd.to_datetime(frame[name], utc=True)})


def test_snapshots_agree_with_the_default_store(tmp_path: Path) -> None:
    @given(case=view_cases("dask"), end=st.integers(-1, 14))
    @FAST
    def check(case: ViewCase, end: int) -> None:
        built = case.build(tmp_path, 0)
        refs = [f"view0:{field.name}" for field in built.features]
        options = {"end_date": minute(end).to_pydatetime()}
        theirs = _quiet_join(tmp_path, [built], refs, None, store=DaskOfflineStore, store_type="dask", **options)
        ours = _quiet_join(tmp_path, [built], refs, None, **options)
        assert set(ours) == set(theirs)
        order = [case.machine if entity is KEY else "site_id" for entity in case.keys]
        theirs = theirs.sort_values(order, ignore_index=True)
        for name in ours:
            assert values(ours, name) == values(theirs, name)

    check()


def both(folder: Path, peer: str, stats: FeatureView, wanted: pd.DataFrame) -> tuple[list[Any], list[Any]]:
    theirs = _quiet_join(folder, [stats], ["stats:value"], wanted.copy(), store=PEERS[peer], store_type=peer)
    return values(theirs), values(join(folder, [stats], ["stats:value"], wanted))


def test_difference_expired_entity_rows_stay(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 5, 10)]), ttl=dt.timedelta(minutes=2))
    wanted = asked([(1, 6), (1, 9), (1, 4)]).astype({"machine_id": "int64"})
    assert both(tmp_path, "dask", stats, wanted) == ([10], [10, None, None])


def test_difference_equal_entity_rows_stay(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 5, 10)]))
    assert both(tmp_path, "dask", stats, asked([(1, 6), (1, 6)])) == ([10], [10, 10])


def test_difference_a_missing_key_matches_nothing(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(None, 5, 10)]).astype({"machine_id": "Int64"}))
    assert both(tmp_path, "dask", stats, asked([(None, 6)])) == ([10], [None])


def test_difference_times_count_to_the_microsecond(tmp_path: Path) -> None:
    later = START + pd.Timedelta(1, unit="ns")
    stats = view(tmp_path, pd.DataFrame({"machine_id": [1], "at": [later], "value": [11]}))
    wanted = pd.DataFrame({"machine_id": [1, 1], "event_timestamp": [START, later]})
    assert both(tmp_path, "dask", stats, wanted) == ([11], [11, 11])


def test_difference_a_missing_creation_time_is_the_oldest_in_pulls_too(tmp_path: Path) -> None:
    rows = machines([(1, 5, None, 10), (1, 5, 6, 11)], ("machine_id", "at", "created", "value"))
    source = view(tmp_path, rows, created_timestamp_column="created").batch_source
    pulled = {}
    for kind, store in (("dask", DaskOfflineStore), ("duckdb", DuckDBOfflineStore), (ASOF, AsOfOfflineStore)):
        arguments = (config(tmp_path, kind), source, ["machine_id"], ["value"], "at", "created", minute(0), minute(9))
        pulled[kind] = store.pull_latest_from_table_or_query(*arguments).to_df()["value"].tolist()
    assert pulled == {"dask": [10], "duckdb": [11], ASOF: [11]}


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("tokyo")
def test_difference_a_bound_without_a_zone_is_utc(tmp_path: Path) -> None:
    source = view(tmp_path, machines([(1, -540, 9), (1, 0, 10)])).batch_source
    start, end = (minute(bound).to_pydatetime().replace(tzinfo=None) for bound in (0, 1))
    pulled = {}
    for kind, store in (("duckdb", DuckDBOfflineStore), (ASOF, AsOfOfflineStore)):
        arguments = (config(tmp_path, kind), source, ["machine_id"], ["value"], "at", None, start, end)
        pulled[kind] = store.pull_all_from_table_or_query(*arguments).to_df()["value"].tolist()
    assert pulled == {"duckdb": [9], ASOF: [10]}


def test_difference_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 5, 10)]))
    wanted = asked([(1, 6)]).astype({"machine_id": "int64"}).assign(value=1)
    for peer in ({}, {"store": DuckDBOfflineStore, "store_type": "duckdb"}):
        with pytest.raises((ValueError, IbisError), match="value"):
            _quiet_join(tmp_path, [stats], ["stats:value"], wanted.copy(), **peer)
    theirs = _quiet_join(tmp_path, [stats], ["stats:value"], wanted, store=DaskOfflineStore, store_type="dask")
    assert (values(theirs, "value"), values(theirs, "value__")) == ([1], [10])


def test_difference_a_snapshot_of_two_views_keeps_entities_apart(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 5, 10), (2, 5, 20)]))
    rows = machines([(1, 2, 8), (3, 1, 7)], ("machine_id", "at", "other"))
    more = view(tmp_path, rows, name="more", features=[Field(name="other", dtype=Int64)])
    arguments = (tmp_path, [stats, more], ["stats:value", "more:other"], None)
    ours = join(*arguments, end_date=minute(8).to_pydatetime())
    assert ours[["machine_id", "value", "other"]].fillna(-1).to_numpy().tolist() == [
        [1, 10, 8],
        [2, 20, -1],
        [3, -1, 7],
    ]
    theirs = _quiet_join(*arguments, store=DaskOfflineStore, store_type="dask", end_date=minute(8).to_pydatetime())
    assert theirs[["machine_id", "value", "other"]].to_numpy().tolist() == [[1, 10, 8], [2, 20, 8]]


def test_difference_partition_columns_have_plain_types(tmp_path: Path) -> None:
    for region in (1, 2):
        folder = tmp_path / "stats" / f"region={region}"
        folder.mkdir(parents=True)
        machines([(region, 0, 10)]).to_parquet(folder / "part.parquet", index=False)
    stats = view_of(tmp_path / "stats", features=[Field(name="region", dtype=Int64)])
    wanted = asked([(2, 6)]).astype({"machine_id": "int64"})
    theirs = _quiet_join(tmp_path, [stats], ["stats:region"], wanted, store=DaskOfflineStore, store_type="dask")
    ours = join(tmp_path, [stats], ["stats:region"], wanted)
    assert (values(theirs, "region"), values(ours, "region")) == ([2], [2])
    assert (str(theirs["region"].dtype), str(ours["region"].dtype)) == ("category", "int64")
