"""The IO manager: one partition or many, whole values or none, and errors that say what and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dagster import (
    AssetIn,
    AssetKey,
    AssetsDefinition,
    BackfillPolicy,
    DagsterInstance,
    ExecuteInProcessResult,
    StaticPartitionsDefinition,
    asset,
    materialize,
)

from mlplatform.datamodule.folds import Fold, StoredFold
from mlplatform.defs.io_managers import ArtifactError, ArtifactIOManager, ArtifactStore
from mlplatform.defs.partitions import RANGE_END, RANGE_START

FOLDS = StaticPartitionsDefinition(["fold_0", "fold_1", "fold_2"])
KEY = AssetKey(["yard", "values"])


def frame(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"row": np.arange(rows), "name": ["x"] * rows})


def stored_fold(start: int) -> StoredFold:
    rows = np.arange(start, start + 3)
    return StoredFold(Fold(rows, rows + 1, rows + 2), config_digest=f"digest {start}")


def values_asset(value: Any, *, partitioned: bool) -> AssetsDefinition:
    """Return an asset that yields `value`, for all partitions of a run at once."""

    def values() -> Any:
        return value

    if not partitioned:
        return asset(key=KEY)(values)
    return asset(key=KEY, partitions_def=FOLDS, backfill_policy=BackfillPolicy.single_run())(values)


class Runs:
    """Materialises assets with the IO manager over one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = ArtifactStore(root)
        self.instance = DagsterInstance.ephemeral()

    def __call__(self, *assets: AssetsDefinition, folds: tuple[str, str] | None = None) -> ExecuteInProcessResult:
        return materialize(
            list(assets),
            resources={"io_manager": ArtifactIOManager(root=str(self.root))},
            instance=self.instance,
            tags={RANGE_START: folds[0], RANGE_END: folds[1]} if folds else None,
        )

    def error(self, *assets: AssetsDefinition, folds: tuple[str, str] | None = None) -> str:
        """Return the message of the `ArtifactError` that a run fails with."""
        with pytest.raises(ArtifactError) as error:
            self(*assets, folds=folds)
        return str(error.value)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def metadata(result: ExecuteInProcessResult, partition: str | None = None) -> dict[str, Any]:
    for event in result.get_asset_materialization_events():
        if event.partition == partition:
            return {key: value.value for key, value in event.materialization.metadata.items()}
    raise AssertionError(f"nothing was materialised for {partition}")


def test_a_table_comes_back_with_rows_and_schema_as_metadata(runs: Runs) -> None:
    result = runs(values_asset(frame(3), partitioned=False))
    pd.testing.assert_frame_equal(runs.store.read(KEY, None, pd.DataFrame), frame(3))
    found = metadata(result)
    assert found["dagster/row_count"] == 3
    assert found["schema"] == "row: int64\nname: object"
    assert found["path"] == str(runs.root / "yard" / "values" / "value")


def test_an_object_comes_back_in_its_own_format(runs: Runs) -> None:
    runs(values_asset(stored_fold(5), partitioned=False))
    loaded = runs.store.read(KEY, None, StoredFold)
    assert loaded.config_digest == "digest 5"
    np.testing.assert_array_equal(loaded.fold.validation, [7, 8, 9])


@pytest.mark.parametrize("value", [frame(2), {"fold_1": frame(2)}], ids=["value", "dict"])
def test_one_partition_takes_a_value_or_a_dict(runs: Runs, value: Any) -> None:
    runs(values_asset(value, partitioned=True), folds=("fold_1", "fold_1"))
    assert len(runs.store.read(KEY, "fold_1", pd.DataFrame)) == 2
    assert not runs.store.folder(KEY, "fold_0").exists()


def test_many_partitions_in_one_run_are_kept_apart(runs: Runs) -> None:
    value = {f"fold_{k}": frame(k + 1) for k in range(3)}
    result = runs(values_asset(value, partitioned=True), folds=("fold_0", "fold_2"))
    for k in range(3):
        assert len(runs.store.read(KEY, f"fold_{k}", pd.DataFrame)) == k + 1
    found = metadata(result, "fold_2")
    assert found["dagster/row_count"] == 6
    assert found["rows_by_partition"] == {"fold_0": 1, "fold_1": 2, "fold_2": 3}


def test_a_partitioned_asset_reads_the_partitions_of_its_run(runs: Runs) -> None:
    seen = {}

    @asset(ins={"values": AssetIn(key=KEY)}, partitions_def=FOLDS, backfill_policy=BackfillPolicy.single_run())
    def reader(values: dict[str, StoredFold]) -> None:
        seen.update(values)

    upstream = values_asset({f"fold_{k}": stored_fold(k) for k in range(2)}, partitioned=True)
    runs(upstream, reader, folds=("fold_0", "fold_1"))
    assert {key: value.config_digest for key, value in seen.items()} == {"fold_0": "digest 0", "fold_1": "digest 1"}


def test_a_plain_asset_reads_all_partitions(runs: Runs) -> None:
    seen = {}

    @asset(ins={"values": AssetIn(key=KEY)})
    def reader(values: dict[str, pd.DataFrame]) -> None:
        seen.update(values)

    upstream = values_asset({f"fold_{k}": frame(k + 1) for k in range(3)}, partitioned=True)
    runs(upstream, reader, folds=("fold_0", "fold_2"))
    assert {key: len(value) for key, value in seen.items()} == {"fold_0": 1, "fold_1": 2, "fold_2": 3}


def test_several_partitions_need_a_dict_annotation(runs: Runs) -> None:
    @asset(ins={"values": AssetIn(key=KEY)})
    def reader(values: pd.DataFrame) -> None:
        raise AssertionError(f"must not be called with {values}")

    upstream = values_asset({f"fold_{k}": frame(1) for k in range(3)}, partitioned=True)
    message = runs.error(upstream, reader, folds=("fold_0", "fold_2"))
    assert "yard/values is read for 3 partitions (fold_0, fold_1, fold_2)" in message
    assert "dict of DataFrame" in message


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"fold_0": frame(1)}, "fold_0"),
        ({"fold_0": frame(1), "fold_7": frame(1)}, "fold_0, fold_7"),
        ({"fold_0": frame(1), "fold_1": frame(1), "fold_2": frame(1)}, "fold_0, fold_1, fold_2"),
        ({}, "returned "),
        (frame(1), "DataFrame"),
    ],
)
def test_a_result_for_other_partitions_than_the_run_s_is_refused_whole(runs: Runs, value: Any, found: str) -> None:
    message = runs.error(values_asset(value, partitioned=True), folds=("fold_0", "fold_1"))
    assert message.startswith("yard/values was run for the partitions fold_0, fold_1 and must return a dict")
    assert found in message
    assert not (runs.root / "yard").exists()


def test_a_type_that_cannot_be_stored_names_asset_partition_and_path(runs: Runs) -> None:
    message = runs.error(values_asset({"fold_1": object()}, partitioned=True), folds=("fold_1", "fold_1"))
    path = runs.root / "yard" / "values" / "fold_1"
    assert message.startswith("yard/values partition fold_1 returned object")
    assert str(path) in message
    assert not path.exists()


@pytest.mark.parametrize("partition", [None, "fold_1"])
def test_a_value_that_was_never_stored_says_what_to_do(runs: Runs, partition: str | None) -> None:
    with pytest.raises(ArtifactError) as error:
        runs.store.read(KEY, partition, pd.DataFrame)
    named = "yard/values partition fold_1" if partition else "yard/values"
    assert str(error.value).startswith(f"{named} has no stored value at {runs.store.folder(KEY, partition)}")
    assert "materialise" in str(error.value)


@pytest.mark.parametrize("damage", ["another type", "no file", "rubbish"])
def test_a_value_that_cannot_be_read_names_asset_partition_path_and_type(runs: Runs, damage: str) -> None:
    runs.store.write(KEY, "fold_1", frame(2))
    table = runs.store.folder(KEY, "fold_1") / "table.parquet"
    if damage == "no file":
        table.unlink()
    elif damage == "rubbish":
        table.write_bytes(b"rubbish")
    kind = StoredFold if damage == "another type" else pd.DataFrame
    with pytest.raises(ArtifactError) as error:
        runs.store.read(KEY, "fold_1", kind)
    expected = f"yard/values partition fold_1 at {table.parent} cannot be read as {kind.__name__}"
    assert str(error.value).startswith(expected)


class Halting:
    """A value whose writing fails half-way."""

    def save(self, folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise OSError("the disk is full")

    @classmethod
    def load(cls, folder: Path) -> Halting:
        raise AssertionError(f"nothing to read in {folder}")


def test_a_write_that_fails_leaves_the_old_value(runs: Runs) -> None:
    runs.store.write(KEY, "fold_1", frame(2))
    with pytest.raises(OSError, match="the disk is full"):
        runs.store.write(KEY, "fold_1", Halting())
    assert len(runs.store.read(KEY, "fold_1", pd.DataFrame)) == 2


def test_a_new_value_replaces_the_old_one_whole(runs: Runs) -> None:
    runs.store.write(KEY, None, stored_fold(0))
    runs.store.write(KEY, None, frame(4))
    folder = runs.store.folder(KEY, None)
    assert [path.name for path in folder.iterdir()] == ["table.parquet"]
    # Nothing but the value and the folder behind it is left.
    assert len(list(folder.parent.iterdir())) == 2
