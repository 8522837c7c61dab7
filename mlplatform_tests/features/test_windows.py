"""Merging rows into windows equals keeping every row in a dictionary, however the rows were cut into batches."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.config import DatasetConfig
from mlplatform.features.errors import EntityTypeError, FeatureStoreError
from mlplatform.features.tables.windows import Merged, Windows, merge_rows, windows_from_table, windows_to_table

STEPS = 6
HOUR = 3_600_000_000_000
START = pd.Timestamp("2024-03-01", tz="UTC").value

DATASET = DatasetConfig.model_validate(
    {
        "name": "plant",
        "kind": "timeseries",
        "source": {"uri": "unused.csv"},
        "time_column": "time",
        "frequency": "1h",
        "window_steps": STEPS,
        "columns": {"load": {}, "mode": {"type": "category"}},
    }
)

Row = tuple[Any, int, float | None, str | None]


def frame(rows: list[Row]) -> pd.DataFrame:
    """Build a frame from (entity, minutes after the start, load, mode)."""
    return pd.DataFrame(
        {
            "entity_id": np.array([row[0] for row in rows], dtype=object if isinstance(rows[0][0], str) else np.int64),
            "event_timestamp": pd.to_datetime([START + row[1] * HOUR // 60 for row in rows], utc=True),
            "load": np.array([math.nan if row[2] is None else row[2] for row in rows], dtype=np.float32),
            "mode": np.array([row[3] for row in rows], dtype=object),
        }
    )


@dataclass
class Model:
    """Windows as one dictionary of rows per entity: the plain reading of what `merge_rows` promises."""

    rows: dict[Any, dict[int, tuple[float | None, str | None]]] = field(default_factory=dict)

    def add(self, batch: list[Row]) -> None:
        for entity, minutes, load, mode in batch:
            known = self.rows.setdefault(entity, {})
            on_grid = not known or (minutes - next(iter(known))) % 60 == 0
            if on_grid and (not known or minutes > max(known) - 60 * STEPS):
                known[minutes] = (load, mode or None)

    def window(self, entity: Any) -> tuple[int, list[tuple[float | None, str | None]]]:
        known = self.rows[entity]
        end = max(known)
        return end, [known.get(end - 60 * back, (None, None)) for back in reversed(range(STEPS))]


def same_as_model(windows: Windows, model: Model) -> None:
    assert windows.entity_ids.tolist() == sorted(model.rows)
    for position, entity in enumerate(windows.entity_ids.tolist()):
        end, steps = model.window(entity)
        assert windows.ends[position] == START + end * HOUR // 60
        expected = np.array([math.nan if load is None else load for load, _ in steps], dtype=np.float32)
        assert windows.columns["load"][position].tobytes() == expected.tobytes()
        assert windows.columns["mode"][position].tolist() == [mode for _, mode in steps]


def same(left: Windows, right: Windows) -> bool:
    return (
        left.entity_ids.tolist() == right.entity_ids.tolist()
        and left.ends.tolist() == right.ends.tolist()
        and left.columns["load"].tobytes() == right.columns["load"].tobytes()
        and left.columns["mode"].tolist() == right.columns["mode"].tolist()
    )


numbers = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1e-45, math.inf, 1.5]))
minutes = st.one_of(st.integers(0, 20).map(lambda hour: hour * 60), st.sampled_from([30, 90, 601, -60, -90]))
modes = st.sampled_from([None, "", "eco", "boost"])


def batches(entities: st.SearchStrategy[Any]) -> st.SearchStrategy[list[list[Row]]]:
    row = st.tuples(entities, minutes, numbers, modes)
    return st.lists(st.lists(row, min_size=1, max_size=12), min_size=1, max_size=5)


@settings(max_examples=80, deadline=None)
@given(st.one_of(batches(st.integers(-2, 3)), batches(st.sampled_from(["é", "a", "b", "10", "9"]))))
def test_merging_equals_a_dictionary_of_rows(given_batches: list[list[Row]]) -> None:
    model, windows = Model(), None
    for batch in given_batches:
        before = windows
        merged = merge_rows(windows, frame(batch), DATASET)
        windows = merged.windows
        model.add(batch)
        same_as_model(windows, model)
        counted = merged.added, merged.late, merged.replaced, merged.repeated, merged.too_old, merged.off_grid
        assert sum(counted) == len(batch)
        check_changed(before, merged)
        again = merge_rows(windows, frame(batch), DATASET)
        assert same(again.windows, windows)


def check_changed(before: Windows | None, merged: Merged) -> None:
    """A window counts as changed exactly where its end or a bit of it is another one."""
    known = {} if before is None else {entity: row for row, entity in enumerate(before.entity_ids.tolist())}
    for position, entity in enumerate(merged.windows.entity_ids.tolist()):
        row = known.get(entity)
        if before is None or row is None:
            assert merged.changed[position]
            continue
        left = Windows(before.entity_ids[[row]], before.ends[[row]], {k: v[[row]] for k, v in before.columns.items()})
        now = merged.windows
        at = [position]
        right = Windows(now.entity_ids[at], now.ends[at], {k: v[at] for k, v in now.columns.items()})
        assert merged.changed[position] == (not same(left, right))


@settings(max_examples=50, deadline=None)
@given(batches(st.integers(0, 2)), st.data())
def test_the_cut_into_batches_does_not_matter_to_rows_that_were_in_time(
    given_batches: list[list[Row]], data: st.DataObject
) -> None:
    rows = [row for batch in given_batches for row in batch]
    whole = merge_rows(None, frame(rows), DATASET).windows
    cuts = sorted(data.draw(st.lists(st.integers(1, len(rows)), max_size=4)))
    parts = [rows[first:last] for first, last in zip([0, *cuts], [*cuts, len(rows)], strict=True) if first < last]
    windows = None
    for part in parts:
        windows = merge_rows(windows, frame(part), DATASET).windows
    assert windows is not None
    assert same(windows, whole)


def test_every_row_is_counted_once_under_its_kind() -> None:
    stored = merge_rows(None, frame([(1, 0, 1.0, "eco"), (1, 180, 2.0, None)]), DATASET).windows
    rows: list[Row] = [
        (1, 240, 3.0, None),  # behind the end
        (2, 0, 3.0, None),  # a new entity
        (1, 60, 5.0, None),  # fills a gap
        (1, 0, 7.0, "eco"),  # another value
        (1, 180, 2.0, None),  # what is stored
        (1, 120, 1.0, None),  # followed by a row for the same step, ...
        (1, 120, None, None),  # ... which says what a gap says
        (1, -120, 1.0, None),  # before the window
        (1, 31, 1.0, None),  # between two steps
    ]
    merged = merge_rows(stored, frame(rows), DATASET)
    assert (merged.added, merged.late, merged.replaced, merged.repeated) == (2, 1, 1, 3)
    assert (merged.too_old, merged.off_grid) == (1, 1)
    assert merged.changed.tolist() == [True, True]
    repeated = merge_rows(merged.windows, frame(rows[4:]), DATASET)
    assert repeated.changed.tolist() == [False, False]


def test_a_row_of_missing_values_is_a_row() -> None:
    stored = merge_rows(None, frame([(1, 0, 1.0, "eco"), (1, 60, 2.0, "eco")]), DATASET).windows
    odd = frame([(1, 60, None, ""), (1, 120, None, None)])
    odd["load"] = np.array([0xFFC12345, 0x7FC00001], dtype=np.uint32).view(np.float32)
    merged = merge_rows(stored, odd, DATASET)
    assert merged.replaced == 1
    assert merged.windows.ends.tolist() == [START + 2 * HOUR]
    assert merged.windows.columns["load"][0, -3] == 1.0
    assert (merged.windows.columns["load"][0, -2:].view(np.uint32) == 0x7FC00000).all()
    assert merged.windows.columns["mode"][0, -3:].tolist() == ["eco", None, None]


def test_the_windows_given_are_left_as_they_were() -> None:
    stored = merge_rows(None, frame([(1, 0, 1.0, "eco"), (2, 0, 1.0, "eco")]), DATASET).windows
    merge_rows(stored, frame([(1, 0, 9.0, "boost"), (2, 60, 9.0, "boost")]), DATASET)
    assert stored.columns["load"][:, -1].tolist() == [1.0, 1.0]
    assert stored.columns["mode"][:, -1].tolist() == ["eco", "eco"]
    assert stored.ends.tolist() == [START, START]


def test_no_rows_change_nothing() -> None:
    empty = frame([(1, 0, 1.0, "eco")]).iloc[:0]
    assert len(merge_rows(None, empty, DATASET).windows.entity_ids) == 0
    stored = merge_rows(None, frame([("a", 0, 1.0, "eco")]), DATASET).windows
    merged = merge_rows(stored, empty, DATASET)
    assert same(merged.windows, stored)
    assert merged.changed.tolist() == [False]


def test_rows_that_do_not_fit_are_refused() -> None:
    good = frame([(1, 0, 1.0, "eco")])
    stored = merge_rows(None, good, DATASET).windows
    with pytest.raises(FeatureStoreError, match=r"the rows lack \['mode'\]"):
        merge_rows(None, good.drop(columns="mode"), DATASET)
    with pytest.raises(FeatureStoreError, match="rows without event_timestamp"):
        merge_rows(None, good.assign(event_timestamp=pd.Series([pd.NaT]).dt.tz_localize("UTC")), DATASET)
    with pytest.raises(FeatureStoreError, match=r"'load' holds numbers, but a row has '1\.0' of type str"):
        merge_rows(None, good.assign(load="1.0"), DATASET)
    with pytest.raises(FeatureStoreError, match=r"'mode' holds text, but a row has 1\.0"):
        merge_rows(None, good.assign(mode=1), DATASET)
    with pytest.raises(EntityTypeError, match="stored entity ids are like 1, but a row has 'a' of type str"):
        merge_rows(stored, frame([("a", 0, 1.0, None)]), DATASET)
    with pytest.raises(EntityTypeError, match=r"a row has 1\.5 of type float"):
        merge_rows(None, good.assign(entity_id=1.5), DATASET)
    longer = DATASET.model_copy(update={"window_steps": STEPS + 1})
    with pytest.raises(FeatureStoreError, match="write the window table anew"):
        merge_rows(stored, good, longer)


@pytest.mark.parametrize("ids", [[1, 2], ["a", "b"]])
def test_the_window_table_holds_the_windows(ids: list[Any]) -> None:
    rows: list[Row] = [(ids[0], 0, -0.0, "eco"), (ids[0], 120, None, None), (ids[1], 60, 1e-45, "boost")]
    windows = merge_rows(None, frame(rows), DATASET).windows
    table = windows_to_table(windows, DATASET, np.array([3, 4]))
    assert table.column_names == ["entity_id", "event_timestamp", "end_ns", "window_load", "window_mode", "revision"]
    assert table.column("window_mode").null_count == 0
    back, revisions = windows_from_table(table, DATASET)
    assert same(back, windows)
    assert revisions.tolist() == [3, 4]
    same_after_a_slice, _ = windows_from_table(table.slice(1), DATASET)
    assert same_after_a_slice.columns["load"][0, -1] == np.float32(1e-45)
    with pytest.raises(FeatureStoreError, match="does not have 7 steps of 'load'; write it anew"):
        windows_from_table(table, DATASET.model_copy(update={"window_steps": STEPS + 1}))
    with pytest.raises(FeatureStoreError, match=r"lacks \['mode'\]"):
        windows_from_table(table.drop_columns(["window_mode"]), DATASET)
