"""What the feature table knew at a moment: every state that it ever had can be read again, whatever came later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig
from mlplatform.datamodule.panel import Panel
from mlplatform.features import FeatureStoreFacade, UnknownEntityError
from mlplatform.features.retrieval.known_future import Known
from mlplatform.features.retrieval.offline import offline_windows
from mlplatform.features.tables import entity_ranges
from mlplatform.settings import Settings
from mlplatform_tests.features.conftest import raw_frame, tabular, tabular_frame, timeseries
from mlplatform_tests.features.stores import fill_offline

COLUMNS = ("load", "oil", "mode")
STEPS = 8
NEWEST = pd.Timestamp("2024-03-02T15:00", tz="UTC")


@dataclass(frozen=True)
class State:
    """What was read while the table was in a state, and a moment at which it was."""

    moment: pd.Timestamp
    panel: Panel


def bits(panel: Panel) -> list[object]:
    numbers = [panel.columns[name].astype(np.float32).tobytes() for name in ("load", "oil")]
    texts = [None if pd.isna(text) else text for text in panel.columns["mode"].tolist()]
    return [panel.entity_ids.tolist(), panel.timestamps.tolist(), numbers, texts]


def read_now(dataset: DatasetConfig, settings: Settings) -> State:
    ids = entity_ranges(dataset, settings)[ENTITY].to_numpy()
    (panel,) = offline_windows(dataset, ids, ["now"], COLUMNS, STEPS, settings)
    return State(pd.Timestamp.now(tz="UTC"), panel)


def as_known(dataset: DatasetConfig, settings: Settings, moment: pd.Timestamp) -> Panel:
    return FeatureStoreFacade(dataset, "as_known", settings).load_features(
        moment.isoformat(), None, COLUMNS, steps=STEPS
    )


def edited(frame: pd.DataFrame, rng: np.random.Generator, edit: str) -> pd.DataFrame:
    """Return the rows after something happened to them at the source."""
    frame = frame.copy()
    last = frame.groupby(ENTITY)[TIMESTAMP].max()
    entity = int(rng.choice(last.index.to_numpy()))
    mine = frame.index[frame[ENTITY] == entity].to_numpy()
    row = frame.loc[[mine[-1]]].assign(load=np.float32(rng.normal()), mode="eco")
    hour = pd.Timedelta(hours=1)
    match edit:
        case "correct":
            frame.loc[rng.choice(mine[-6:]), "load"] = np.float32(rng.normal())
        case "blank":
            frame.loc[rng.choice(mine[-6:]), ["oil", "mode"]] = [np.nan, None]
        case "drop":
            frame = frame.drop(index=rng.choice(mine[-4:]))
        case "append":
            frame = pd.concat([frame, row.assign(**{TIMESTAMP: last[entity] + int(rng.integers(1, 40)) * hour})])
        case "prepend":
            entity = int(frame.groupby(ENTITY).size().idxmin())
            first = frame.loc[frame[ENTITY] == entity, TIMESTAMP].min()
            row = row.assign(**{ENTITY: entity, TIMESTAMP: first - int(rng.integers(1, 3)) * hour})
            frame = pd.concat([frame, row])
        case "fill":
            own = frame[frame[ENTITY] == 1] if (frame[ENTITY] == 1).any() else frame.loc[mine]
            times = pd.date_range(own[TIMESTAMP].min(), own[TIMESTAMP].max(), freq="h")
            gaps = times.difference(pd.DatetimeIndex(own[TIMESTAMP]))
            if len(gaps):
                frame = pd.concat([frame, row.assign(**{ENTITY: own[ENTITY].iloc[0], TIMESTAMP: gaps[-1]})])
        case "arrive":
            frame = pd.concat([frame, frame.loc[mine].assign(**{ENTITY: int(last.index.max()) + 1})])
        case "leave":
            frame = frame[frame[ENTITY] != entity] if len(last) > 1 else frame
    return frame.reset_index(drop=True)


EDITS = ("correct", "blank", "drop", "append", "prepend", "fill", "arrive", "leave")


@pytest.mark.parametrize("edit", EDITS)
def test_a_state_can_be_read_after_one_more_edit(dataset: DatasetConfig, settings: Settings, edit: str) -> None:
    rng = np.random.default_rng(3)
    frame = raw_frame()
    fill_offline(frame, dataset, settings)
    before = read_now(dataset, settings)
    fill_offline(edited(frame, rng, edit), dataset, settings)
    after = read_now(dataset, settings)
    assert bits(after.panel) != bits(before.panel)
    assert bits(as_known(dataset, settings, before.moment)) == bits(before.panel)
    assert bits(as_known(dataset, settings, after.moment)) == bits(after.panel)


@pytest.mark.parametrize("seed", range(4))
def test_every_state_of_a_long_story_can_be_read_again(settings: Settings, seed: int) -> None:
    dataset = timeseries("story").model_copy(update={"partition": "day"})
    rng = np.random.default_rng(seed)
    frame, states = raw_frame(), []
    for edit in ["none", *rng.choice(EDITS, 12)]:
        frame = edited(frame, rng, edit)
        fill_offline(frame, dataset, settings)
        states.append(read_now(dataset, settings))
    for state in states:
        assert bits(as_known(dataset, settings, state.moment)) == bits(state.panel)


def test_a_past_origin_sees_neither_later_rows_nor_a_late_correction(
    dataset: DatasetConfig, settings: Settings
) -> None:
    frame = raw_frame()
    frame = frame[frame[ENTITY] == 1].reset_index(drop=True)
    fill_offline(frame, dataset, settings)
    origin = pd.Timestamp("2024-03-02T03:30", tz="UTC")
    before = as_known(dataset, settings, origin)
    assert before.timestamps.max() == np.datetime64("2024-03-02T03:00")
    seen = frame.set_index(TIMESTAMP)["load"].loc["2024-03-01T20:00+00:00":"2024-03-02T03:00+00:00"]
    assert before.columns["load"].tolist() == seen.tolist()
    wrong = frame[TIMESTAMP] == pd.Timestamp("2024-03-02T02:00", tz="UTC")
    corrected = frame.assign(load=frame["load"].mask(wrong, np.float32(99)))
    fill_offline(corrected, dataset, settings)
    assert bits(as_known(dataset, settings, origin)) == bits(before)
    (now,) = offline_windows(dataset, [1], [origin.isoformat()], COLUMNS, STEPS, settings)
    assert now.columns["load"][-2] == 99


def test_an_entity_that_came_later_was_not_known(dataset: DatasetConfig, settings: Settings) -> None:
    frame = raw_frame()
    fill_offline(frame[frame[ENTITY] == 1], dataset, settings)
    before = pd.Timestamp.now(tz="UTC")
    fill_offline(frame, dataset, settings)
    store = FeatureStoreFacade(dataset, "as_known", settings)
    assert as_known(dataset, settings, before).entity_ids.tolist() == [1]
    with pytest.raises(UnknownEntityError) as unknown:
        store.load_features(before.isoformat(), [1, 2], COLUMNS, steps=STEPS)
    assert unknown.value.entities == (2,)
    assert store.load_features("now", [2, 1], COLUMNS, steps=STEPS).entity_ids.tolist() == [2, 1]


def test_of_the_future_only_what_is_known_beforehand_is_read(dataset: DatasetConfig, settings: Settings) -> None:
    frame = raw_frame()
    fill_offline(frame, dataset, settings)
    store = FeatureStoreFacade(dataset, "as_known", settings)
    known = Known(("load",), ("oil",), 3)
    origin = pd.Timestamp("2024-03-01T20:00", tz="UTC")
    panel = store.load_features(origin.isoformat(), [1], ("oil", "load"), steps=4, known=known)
    assert panel.timestamps.max() == np.datetime64("2024-03-01T20:00")
    ahead = frame.set_index(TIMESTAMP)["load"].loc[origin + pd.Timedelta(hours=1) : origin + pd.Timedelta(hours=3)]
    assert panel.known_ahead["load"].tolist() == [ahead.tolist()]


def test_a_plan_is_read_as_it_was(dataset: DatasetConfig, settings: Settings) -> None:
    frame = raw_frame()
    is_planned = frame[TIMESTAMP] > NEWEST - pd.Timedelta(hours=1)
    planned = frame.assign(oil=frame["oil"].mask(is_planned))
    moments = []
    for load in (7, 8):
        fill_offline(planned.assign(load=planned["load"].mask(is_planned, np.float32(load))), dataset, settings)
        moments.append(pd.Timestamp.now(tz="UTC"))
    store = FeatureStoreFacade(dataset, "as_known", settings)
    known = Known(("load",), ("oil",), 4)
    for moment, load in zip(moments, (7, 8), strict=True):
        panel = store.load_features(moment.isoformat(), [1], ("oil", "load"), steps=4, known=known)
        # The oil was last observed four hours before the plan, with three hours without a row between.
        assert panel.timestamps.max() == NEWEST.tz_localize(None) - pd.Timedelta(hours=4)
        assert panel.known_ahead["load"][0].tolist()[-1] == load


def test_rows_of_a_table_are_those_of_the_moment(settings: Settings) -> None:
    dataset = tabular()
    frame = tabular_frame()
    fill_offline(frame, dataset, settings)
    moments = [pd.Timestamp.now(tz="UTC")]
    older = frame.assign(age=np.array([1, 2, 3], np.float32))
    fill_offline(older, dataset, settings)
    moments.append(pd.Timestamp.now(tz="UTC"))
    more = pd.concat([older[older[ENTITY] != "b"], older[:1].assign(**{ENTITY: "d"})], ignore_index=True)
    fill_offline(more, dataset, settings)
    moments.append(pd.Timestamp.now(tz="UTC"))
    store = FeatureStoreFacade(dataset, "as_known", settings)
    found = [store.load_features(moment.isoformat(), None, ("age",)) for moment in moments]
    assert [panel.entity_ids.tolist() for panel in found] == [list("abc"), list("abc"), list("acd")]
    expected = [frame["age"], older["age"], [1, 3, 1]]
    for panel, ages in zip(found, expected, strict=True):
        np.testing.assert_array_equal(panel.columns["age"], np.asarray(ages, np.float32))


def test_a_late_row_of_a_table_with_times_was_not_known(settings: Settings) -> None:
    dataset = tabular().model_copy(update={"time_column": "seen", "partition": "year"})
    frame = tabular_frame()
    last = frame.assign(**{TIMESTAMP: pd.Timestamp("2024-06-01", tz="UTC"), "age": np.float32(5)})
    both = pd.concat([frame, last], ignore_index=True)
    fill_offline(both, dataset, settings)
    moment = pd.Timestamp.now(tz="UTC")
    between = frame.assign(**{TIMESTAMP: pd.Timestamp("2023-06-01", tz="UTC"), "age": np.float32(4)})
    fill_offline(pd.concat([both, between], ignore_index=True), dataset, settings)
    store = FeatureStoreFacade(dataset, "as_known", settings)
    # In 2024 the first load counts as known; the row between came after it, and so after any moment of the past.
    early = store.load_features("2024-01-01", None, ("age",))
    np.testing.assert_array_equal(early.columns["age"], frame["age"].to_numpy())
    for at in (moment, pd.Timestamp.now(tz="UTC")):
        assert store.load_features(at.isoformat(), None, ("age",)).columns["age"].tolist() == [5, 5, 5]
