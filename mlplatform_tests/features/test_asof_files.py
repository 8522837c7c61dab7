"""Sources of the as-of store: files, folders, partitions, links that move, and addresses of other file systems."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore, Field
from feast.credentials import ConnectionRef
from feast.types import Int64, String
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from mlplatform.features.asof import files as asof_files
from mlplatform.features.asof.files import Place, partition_columns
from mlplatform.features.asof.store import AsOfOfflineStore
from mlplatform_tests.features.asof_yard import KEY, SITE, VALUE, asked, config, join, machines, minute, values, view_of

REFS = ["stats:value"]


def table(rows: list[tuple[Any, ...]], columns: tuple[str, ...] = ("machine_id", "at", "value")) -> pa.Table:
    return pa.Table.from_pandas(machines(rows, columns), preserve_index=False)


def write(path: Path, rows: list[tuple[Any, ...]], columns: tuple[str, ...] = ("machine_id", "at", "value")) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(rows, columns), path)


def test_a_folder_is_all_its_parquet_files_but_the_hidden_ones(tmp_path: Path) -> None:
    folder = tmp_path / "odd [name] *it's?"
    write(folder / "2024" / "01.parquet", [(1, 0, 10)])
    write(folder / "2024" / "02 [b].parquet", [(1, 5, 11)])
    for hidden in (".hidden.parquet", "_temporary/part.parquet", "2024/.staged/part.parquet"):
        write(folder / hidden, [(1, 0, -1), (1, 5, -1), (1, 9, -1)])
    (folder / "_SUCCESS").touch()
    stats = view_of(folder)
    assert join(tmp_path, [stats], REFS, asked([(1, 4), (1, 9)]))["value"].tolist() == [10, 11]


def test_a_source_without_files_is_reported_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, problem in (("empty", "empty holds no .parquet file"), ("none", "there is no Parquet .*none")):
        with pytest.raises(FileNotFoundError, match=problem):
            join(tmp_path, [view_of(tmp_path / path)], REFS, asked([(1, 4)]))


def test_a_relative_path_starts_at_the_repository(tmp_path: Path) -> None:
    write(tmp_path / "data" / "stats.parquet", [(1, 0, 10)])
    for path in ("data", "data/stats.parquet", f"file://{tmp_path}/data"):
        assert join(tmp_path, [view_of(path)], REFS, asked([(1, 4)]))["value"].tolist() == [10]


def test_columns_that_came_later_are_null_in_earlier_files(tmp_path: Path) -> None:
    write(tmp_path / "stats" / "1.parquet", [(1, 0, 10)])
    write(tmp_path / "stats" / "2.parquet", [(1, 5, 11, 0.5)], ("machine_id", "at", "value", "load"))
    stats = view_of(tmp_path / "stats", features=[VALUE, Field(name="load", dtype=Int64)])
    result = join(tmp_path, [stats], ["stats:value", "stats:load"], asked([(1, 4), (1, 9)]))
    assert (values(result), values(result, "load")) == ([10, 11], [None, 0.5])


def partitioned(folder: Path) -> None:
    write(folder / "machine_id=1" / "region=no%20rth" / "a.parquet", [(0, 10), (5, 11)], ("at", "value"))
    write(folder / "machine_id=2" / "region=007x" / "a.parquet", [(0, 20)], ("at", "value"))
    write(folder / "machine_id=2" / "region=__HIVE_DEFAULT_PARTITION__" / "a.parquet", [(5, 21)], ("at", "value"))


def test_partition_columns_are_keys_and_features(tmp_path: Path) -> None:
    partitioned(tmp_path / "stats")
    stats = view_of(tmp_path / "stats", features=[VALUE, Field(name="region", dtype=String)])
    wanted = asked([(2, 9), (1, 4), (2, 1), (3, 9)])
    result = join(tmp_path, [stats], ["stats:value", "stats:region"], wanted)
    assert values(result) == [21, 10, 20, None]
    assert values(result, "region") == [None, "no rth", "007x", None]
    pulled = AsOfOfflineStore.pull_latest_from_table_or_query(
        config(tmp_path), stats.batch_source, ["machine_id"], ["region"], "at", None, minute(0), minute(9)
    ).to_arrow()
    assert pulled.schema.field("machine_id").type == pa.int64()
    assert dict(zip(pulled["machine_id"].to_pylist(), pulled["region"].to_pylist(), strict=True)) == {
        1: "no rth",
        2: None,
    }


def test_partition_columns_are_numbers_only_if_all_values_are() -> None:
    paths = [PurePosixPath(path) for path in ("y=2024/m=01/k=1/f", "y=-3/m=x/k=__HIVE_DEFAULT_PARTITION__/f")]
    assert partition_columns(paths) == (("y", "BIGINT"), ("m", "VARCHAR"), ("k", "BIGINT"))


def test_partition_columns_keep_values_apart_that_are_one_number() -> None:
    paths = [PurePosixPath(f"k={key}/m={month}/f") for key, month in (("007", "01"), ("7", "02"))]
    assert partition_columns(paths) == (("k", "VARCHAR"), ("m", "BIGINT"))
    assert partition_columns([PurePosixPath(f"k={2**63}/f")]) == (("k", "VARCHAR"),)


def test_a_query_reads_one_snapshot_while_the_link_moves_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (1, 2):
        for part in range(3):
            write(tmp_path / f"v{version}" / f"{part}.parquet", [(part, 0, version)])
    link = tmp_path / "stats"
    link.symlink_to("v1")
    stats = view_of(link)
    again = stats.with_name("again")
    original = Place.files

    def moves_meanwhile(place: Place) -> tuple[str, ...]:
        files = original(place)
        moved = tmp_path / "moved"
        moved.symlink_to("v2")
        moved.replace(link)
        return files

    wanted = asked([(0, 1), (1, 1), (2, 1)])
    with monkeypatch.context() as patch:
        patch.setattr(asof_files.Place, "files", moves_meanwhile)
        result = join(tmp_path, [stats, again], [*REFS, "again:value"], wanted, full_feature_names=True)
    assert (values(result, "stats__value"), values(result, "again__value")) == ([1, 1, 1], [1, 1, 1])
    shutil.rmtree(tmp_path / "v1")
    assert values(join(tmp_path, [stats], REFS, wanted)) == [2, 2, 2]


@pytest.fixture
def memory() -> Iterator[Any]:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    if filesystem.exists("/bucket"):
        filesystem.rm("/bucket", recursive=True)


def upload(filesystem: Any, path: str, rows: pa.Table) -> None:
    with filesystem.open(path, "wb") as file:
        pq.write_table(rows, file)


def test_a_folder_in_another_file_system_joins_pulls_and_materializes(tmp_path: Path, memory: Any) -> None:
    upload(memory, "/bucket/stats/region=1/a.parquet", table([(1, 0, 10)]))
    upload(memory, "/bucket/stats/region=2/b [x].parquet", table([(1, 5, 11), (2, 0, 20)]))
    upload(memory, "/bucket/stats/_tmp/c.parquet", table([(1, 7, -1)]))
    stats = view_of("memory://bucket/stats", features=[VALUE, Field(name="region", dtype=Int64)])
    write(tmp_path / "sites.parquet", [("n", 0, 5)], ("site_id", "at", "value"))
    sites = view_of(tmp_path / "sites.parquet", name="sites", entities=[SITE])
    wanted = asked([(1, 9), (2, 9)]).assign(site_id="n")
    refs = ["stats:value", "stats:region", "sites:value"]
    result = join(tmp_path, [stats, sites], refs, wanted, full_feature_names=True)
    assert values(result, "stats__value") == [11, 20]
    assert values(result, "stats__region") == [2, 2]
    assert values(result, "sites__value") == [5, 5]
    store = FeatureStore(config=config(tmp_path))
    store.apply([KEY, stats])
    store.materialize(minute(-1), minute(20))
    online = store.get_online_features(REFS, [{"machine_id": 1}, {"machine_id": 2}]).to_dict()
    assert online["value"] == [11, 20]


class FakeS3(DirFileSystem):
    """An object store that is a folder, and notes how it was opened."""

    protocol = "s3"
    root = ""
    opened: dict[str, Any]

    def __init__(self, **options: Any) -> None:
        super().__init__(path=self.root, fs=LocalFileSystem(), skip_instance_cache=True)
        type(self).opened = options

    def unstrip_protocol(self, name: str) -> str:
        return f"s3://{name}"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("s3://")


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "s3"
    root.mkdir()
    monkeypatch.setattr(FakeS3, "root", str(root))
    monkeypatch.setitem(importlib.import_module("fsspec.registry")._registry, "s3", FakeS3)
    return root


def test_endpoint_and_credentials_of_a_source_reach_the_driver(
    tmp_path: Path, s3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(s3 / "bucket" / "stats.parquet", [(1, 0, 10)])
    stats = view_of("s3://bucket/stats.parquet", s3_endpoint_override="http://minio:9000")
    assert join(tmp_path, [stats], REFS, asked([(1, 4)]))["value"].tolist() == [10]
    assert FakeS3.opened == {"client_kwargs": {"endpoint_url": "http://minio:9000"}}
    secrets = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "hidden", "AWS_DEFAULT_REGION": "north"}
    monkeypatch.setattr("feast.credentials.resolve_credentials", lambda _: secrets)
    stats = view_of("s3://bucket/stats.parquet", connection_ref=ConnectionRef(provider="env", name="stats"))
    assert join(tmp_path, [stats], REFS, asked([(1, 4)]))["value"].tolist() == [10]
    assert FakeS3.opened == {"key": "me", "secret": "hidden", "client_kwargs": {"region_name": "north"}}
    assert "hidden" not in repr(asof_files.source_place(stats.batch_source, tmp_path))


def test_two_servers_of_one_kind_in_one_query_are_refused(tmp_path: Path, s3: Path) -> None:
    write(s3 / "bucket" / "stats.parquet", [(1, 0, 10)])
    views = [
        view_of("s3://bucket/stats.parquet", name=name, s3_endpoint_override=f"http://{name}") for name in ("a", "b")
    ]
    with pytest.raises(ValueError, match="one query cannot read s3 addresses of different servers"):
        join(tmp_path, views, ["a:value", "b:value"], asked([(1, 4)]), full_feature_names=True)


def test_an_address_without_a_driver_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere://bucket/x cannot be opened: Protocol not known"):
        join(tmp_path, [view_of("nowhere://bucket/x")], REFS, asked([(1, 4)]))


def test_feast_reads_the_types_of_a_source_it_cannot_open_itself(tmp_path: Path, memory: Any) -> None:
    upload(memory, "/bucket/stats/region=n/a.parquet", table([(1, 0, 10)]))
    source = view_of("memory://bucket/stats").batch_source
    columns = AsOfOfflineStore().get_table_column_names_and_types_from_data_source(config(tmp_path), source)
    assert list(columns) == [
        ("machine_id", "int64"),
        ("at", "timestamp[ns, tz=UTC]"),
        ("value", "int64"),
        ("region", "string"),
    ]
