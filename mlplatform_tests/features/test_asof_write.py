"""What the as-of store writes: rows appended to sources, logged features, saved datasets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureService, FeatureStore, FeatureView, Field
from feast.dqm.errors import ValidationFailed
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.types import Int64, String

from mlplatform.features.asof.job import AsOfRetrievalJob
from mlplatform.features.asof.join import PointInTimeJoin
from mlplatform.features.asof.store import AsOfOfflineStore
from mlplatform_tests.features.asof_yard import (
    KEY,
    START,
    VALUE,
    asked,
    config,
    job,
    join,
    machines,
    minute,
    values,
    view,
    view_of,
)

REFS = ["stats:value"]


def batch(rows: list[tuple[Any, ...]], columns: tuple[str, ...] = ("machine_id", "at", "value")) -> pa.Table:
    return pa.Table.from_pandas(machines(rows, columns), preserve_index=False)


def append(folder: Path, stats: FeatureView, rows: pa.Table) -> None:
    AsOfOfflineStore.offline_write_batch(config(folder), stats, rows, None)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def memory() -> Iterator[Any]:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    if filesystem.exists("/bucket"):
        filesystem.rm("/bucket", recursive=True)


def test_a_file_is_rewritten_with_the_new_rows(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10)]))
    progress = Mock()
    AsOfOfflineStore.offline_write_batch(config(tmp_path), stats, batch([(1, 5, 11)]), progress)
    progress.assert_called_once_with(1)
    assert join(tmp_path, [stats], REFS, asked([(1, 1), (1, 6)]))["value"].tolist() == [10, 11]


def test_a_file_stays_as_it_was_if_the_writer_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stats = view(tmp_path, machines([(1, 0, 10)]))
    before = (tmp_path / "stats.parquet").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            append(tmp_path, stats, batch([(1, 5, 11)]))
    assert (tmp_path / "stats.parquet").read_bytes() == before
    assert names(tmp_path) == {"stats.parquet", ".stats.parquet.lock"}


def test_a_folder_gets_a_file_more_and_its_old_files_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    pq.write_table(batch([(1, 0, 10)]), folder / "part.parquet")
    stats = view_of(folder)
    before = (folder / "part.parquet").stat()
    append(tmp_path, stats, batch([(1, 5, 11)]))
    after = (folder / "part.parquet").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert len(names(folder)) == 2
    assert join(tmp_path, [stats], REFS, asked([(1, 1), (1, 6)]))["value"].tolist() == [10, 11]


def test_rows_go_to_the_partitions_that_their_values_name(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    first = folder / "site=a%20b" / "year=2024"
    first.mkdir(parents=True)
    pq.write_table(batch([(1, 0, 10)]), first / "part.parquet")
    (folder / "site=__HIVE_DEFAULT_PARTITION__" / "year=2023").mkdir(parents=True)
    pq.write_table(batch([(2, 0, 20)]), folder / "site=__HIVE_DEFAULT_PARTITION__" / "year=2023" / "part.parquet")
    stats = view_of(folder, features=[VALUE, Field(name="site", dtype=String), Field(name="year", dtype=Int64)])
    columns = ("machine_id", "at", "value", "site", "year")
    append(tmp_path, stats, batch([(1, 5, 11, "a b", 2024), (1, 6, 12, "c/d", 2025), (2, 5, 21, None, 2024)], columns))
    assert {str(Path(name).parent) for name in names(folder)} == {
        "site=a%20b/year=2024",
        "site=c%2Fd/year=2025",
        "site=__HIVE_DEFAULT_PARTITION__/year=2023",
        "site=__HIVE_DEFAULT_PARTITION__/year=2024",
    }
    refs = ["stats:value", "stats:site", "stats:year"]
    result = join(tmp_path, [stats], refs, asked([(1, 5), (1, 9), (2, 9)]))
    assert values(result, "value") == [11, 12, 21]
    assert values(result, "site") == ["a b", "c/d", None]
    assert values(result, "year") == [2024, 2025, 2024]


def test_rows_are_appended_in_another_file_system(tmp_path: Path, memory: Any) -> None:
    for name in ("file.parquet", "folder/part.parquet"):
        with memory.open(f"/bucket/{name}", "wb") as file:
            pq.write_table(batch([(1, 0, 10)]), file)
    for name in ("file.parquet", "folder"):
        stats = view_of(f"memory://bucket/{name}")
        append(tmp_path, stats, batch([(1, 5, 11)]))
        assert join(tmp_path, [stats], REFS, asked([(1, 1), (1, 6)]))["value"].tolist() == [10, 11]
    assert len(memory.find("/bucket")) == 3


def test_rows_that_do_not_fit_the_source_are_refused(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10)]))
    with pytest.raises(ValueError, match=r"view 'stats': the rows have columns \['value', 'at'\], but .* has"):
        append(tmp_path, stats, batch([(1, 5, 11)]).select(["value", "at"]))
    with pytest.raises(ValueError, match=r"view 'stats': the rows do not have the types of .*stats.parquet"):
        append(tmp_path, stats, batch([(1, 5, "many")]))
    narrow = batch([(1, 5, 11)])
    append(tmp_path, stats, narrow.set_column(2, "value", narrow["value"].cast(pa.int8())))
    assert pq.read_schema(tmp_path / "stats.parquet").field("value").type == pa.int64()


def test_feast_writes_to_the_offline_store(tmp_path: Path) -> None:
    store = FeatureStore(config=config(tmp_path))
    store.apply([KEY, view(tmp_path, machines([(1, 0, 10)]))])
    store.write_to_offline_store("stats", machines([(1, 5, 11)]))
    result = store.get_historical_features(asked([(1, 1), (1, 6)]), REFS).to_df()
    assert result["value"].tolist() == [10, 11]


def test_logged_features_are_added_to_a_folder_and_read_back(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10)]))
    logging = LoggingConfig(destination=FileLoggingDestination(path="logs", partition_by=["day"]))
    logs = pa.table({"request": [1, 2], "value": [0.5, 0.25], "day": ["mon", "tue"]})
    for _ in range(2):
        AsOfOfflineStore.write_logged_features(config(tmp_path), logs, Mock(), logging, Mock())
    pq.write_table(logs, tmp_path / "more.parquet")
    AsOfOfflineStore.write_logged_features(config(tmp_path), tmp_path / "more.parquet", Mock(), logging, Mock())
    assert pq.read_table(tmp_path / "logs").num_rows == 6
    assert {str(Path(name).parent) for name in names(tmp_path / "logs")} == {"day=mon", "day=tue"}

    service = FeatureService(
        name="service",
        features=[stats],
        logging_config=LoggingConfig(destination=FileLoggingDestination(path="served")),
    )
    store = FeatureStore(config=config(tmp_path))
    store.apply([KEY, stats, service])
    served = {
        "machine_id": [1],
        "stats__value": [10],
        "stats__value__timestamp": [START],
        "stats__value__status": [2],
        "__log_date": [START.date()],
        "__log_timestamp": [START],
        "__request_id": ["r"],
    }
    store.write_logged_features(pa.table(served), service)
    found = store._get_provider().retrieve_feature_service_logs(
        service, minute(-1), minute(1), store.config, store.registry
    )
    assert found.to_df()["stats__value"].tolist() == [10]


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("path", ["saved.parquet", "saved", "memory://bucket/saved.parquet", "memory://bucket/saved"])
def test_a_result_is_saved_and_replaced_only_if_that_is_wanted(tmp_path: Path, path: str) -> None:
    stats = view(tmp_path, machines([(1, 0, 10), (2, 0, 20)]))
    store = FeatureStore(config=config(tmp_path))
    store.apply([KEY, stats])
    storage = SavedDatasetFileStorage(path)

    def save(rows: pd.DataFrame, **options: Any) -> None:
        lazy = store.get_historical_features(rows, REFS, full_feature_names=True)
        store.create_saved_dataset(lazy, "saved", storage, **options)

    save(asked([(2, 3), (1, 2), (2, 3)]).assign(note=["x", "y", "z"]))
    saved = store.get_saved_dataset("saved").to_df()
    assert saved["stats__value"].tolist() == [20, 10, 20]
    assert saved["event_timestamp"].tolist() == [minute(3), minute(2), minute(3)]
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        save(asked([(1, 1)]))
    assert len(store.get_saved_dataset("saved").to_df()) == 3
    save(asked([(1, 3)]), allow_overwrite=True)
    assert store.get_saved_dataset("saved").to_df()["stats__value"].tolist() == [10]
    assert not [name for name in names(tmp_path) if name.startswith(".saved")]


def test_saving_streams_batches_in_order_and_keeps_all_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 300_000
    keys = np.random.default_rng(0).integers(0, 1000, size)
    stats = view(tmp_path, pd.DataFrame({"machine_id": np.arange(1000), "at": START, "value": np.arange(1000) * 3}))
    wanted = pd.DataFrame({"machine_id": keys, "event_timestamp": minute(1), "note": np.arange(size).astype(str)})
    lazy = job(tmp_path, [stats], REFS, wanted)
    assert isinstance(lazy, AsOfRetrievalJob)
    batches = list(lazy.to_arrow_reader())
    assert max(each.num_rows for each in batches) < size / 2
    monkeypatch.setattr(PointInTimeJoin, "table", Mock(side_effect=AssertionError("the whole table was made")))
    lazy.persist(SavedDatasetFileStorage("saved.parquet"))
    saved = pq.read_table(tmp_path / "saved.parquet")
    assert saved.column_names == ["machine_id", "event_timestamp", "note", "value"]
    np.testing.assert_array_equal(saved["value"].to_numpy(), keys * 3)
    assert saved["note"].to_pylist() == wanted["note"].tolist()


@pytest.mark.parametrize("path", ["saved.parquet", "saved"])
def test_a_saved_result_stays_if_the_one_to_replace_it_fails(tmp_path: Path, path: str) -> None:
    stats = view(tmp_path, machines([(1, 0, 10)]))
    storage = SavedDatasetFileStorage(path)
    job(tmp_path, [stats], REFS, asked([(1, 1)])).persist(storage)
    stats.batch_source.file_options.uri = str(tmp_path / "gone.parquet")
    with pytest.raises(FileNotFoundError):
        job(tmp_path, [stats], REFS, asked([(1, 1)])).persist(storage, allow_overwrite=True)
    (tmp_path / "gone.parquet").write_bytes((tmp_path / "stats.parquet").read_bytes()[:-4] + b"nope")
    with pytest.raises(Exception, match=r"(?i)magic bytes"):
        job(tmp_path, [stats], REFS, asked([(1, 1)])).persist(storage, allow_overwrite=True)
    assert pq.read_table(tmp_path / path)["value"].to_pylist() == [10]
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_other_storage_is_refused(tmp_path: Path) -> None:
    stats = view(tmp_path, machines([(1, 0, 10)]))
    with pytest.raises(ValueError, match="saves to SavedDatasetFileStorage only, not Mock"):
        job(tmp_path, [stats], REFS, asked([(1, 1)])).persist(Mock())


def test_a_validation_reference_checks_the_result(tmp_path: Path) -> None:
    lazy = job(tmp_path, [view(tmp_path, machines([(1, 0, 10)]))], REFS, asked([(1, 1)]))
    seen: list[pd.DataFrame] = []

    def validate(frame: pd.DataFrame) -> Mock:
        seen.append(frame)
        return Mock(is_success=len(seen) == 1)

    reference = Mock(profile=Mock(validate=validate))
    assert lazy.to_df(validation_reference=reference)["value"].tolist() == [10]
    with pytest.raises(ValidationFailed):
        lazy.to_arrow(validation_reference=reference)
    assert seen[1]["value"].tolist() == [10]
