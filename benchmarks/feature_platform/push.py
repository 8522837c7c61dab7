"""Pushing one new hour for 1,000 entities, and the equality of what is pushed with the offline windows.

The peer is plain Feast: `FeatureStore.push` of the finished windows, on a smaller number of entities because of its
speed, without the reading and merging that a push of single rows does besides.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import DatasetConfig
from mlplatform.features.feast import open_store, push_source_name, windows_view_name
from mlplatform.features.online import push_rows, read_windows
from mlplatform.features.retrieval import offline_windows
from mlplatform.features.tables import WINDOW_END, WINDOW_PREFIX
from mlplatform.settings import Settings
from mlplatform.testing import write_feature_table

ENTITIES = 1_000
WINDOW = 720
HOURS = 10
AIM_ROWS_S = 2_000
FEAST_ENTITIES = 50

COMPARED_ENTITIES = 100
COMPARED_WINDOW = 168
COMPARED_HOURS = 50
COMPARED_EACH = 20
LATE_SHARE, REPEATED_SHARE = 0.1, 0.1
LATEST_BY_HOURS = 12


def run() -> None:
    """Print the rows per second of both stores, and how many windows were equal."""
    from figures import report

    from feature_platform.online_stores import dataset, fill, installations, rows

    with installations() as stores:
        for name, settings in stores.items():
            bench = dataset(WINDOW)
            fill(bench, rows(ENTITIES, 0, WINDOW), settings)
            seconds = []
            for hour in range(HOURS):
                arriving = rows(ENTITIES, WINDOW + hour, 1)
                began = time.perf_counter()
                push_rows(bench, arriving, settings)
                seconds.append(time.perf_counter() - began)
            rate, feast = ENTITIES / float(np.median(seconds)), _feast_rate(bench, settings)
            report(
                "push",
                f"{name}: one hour for {ENTITIES:,} entities, windows of {WINDOW} steps x 7 features",
                rate,
                "rows/s",
                peer="FeatureStore.push of windows",
                peer_value=feast,
                aim=f">= {AIM_ROWS_S:,} rows/s",
                met=rate >= AIM_ROWS_S,
            )
    with installations() as stores:
        for name, settings in stores.items():
            equal, compared = _compare(settings)
            report(
                "push",
                f"{name}: windows equal to the offline windows in every bit, of {compared:,} (entity, cut-off) pairs",
                equal,
                "pairs",
                aim=f"{compared:,} pairs",
                met=equal == compared,
            )


def _feast_rate(bench: DatasetConfig, settings: Settings) -> float:
    """Return how many windows a second plain Feast pushes."""
    from feature_platform.online_stores import COLUMNS, START

    end = START + pd.Timedelta(hours=WINDOW + HOURS)
    window = np.random.default_rng(2).normal(size=(FEAST_ENTITIES, WINDOW)).astype(np.float32)
    frame = pd.DataFrame({"entity_id": np.arange(FEAST_ENTITIES), "event_timestamp": end, WINDOW_END: end.value})
    frame = frame.assign(**{f"{WINDOW_PREFIX}{name}": list(window) for name in COLUMNS})
    store = open_store(settings)
    began = time.perf_counter()
    store.push(push_source_name(windows_view_name(bench)), frame)
    return FEAST_ENTITIES / (time.perf_counter() - began)


def _compare(settings: Settings) -> tuple[int, int]:
    """Push hour by hour with late and repeated rows; return how many windows equalled the offline ones, of how many."""
    from feature_platform.online_stores import dataset, fill, rows

    generator = np.random.default_rng(3)
    bench = dataset(COMPARED_WINDOW)
    first = COMPARED_WINDOW + 24
    known = rows(COMPARED_ENTITIES, 0, first)
    fill(bench, known, settings)
    future = rows(COMPARED_ENTITIES, first, COMPARED_HOURS)
    delays = generator.integers(1, LATEST_BY_HOURS, len(future))
    delays[generator.random(len(future)) >= LATE_SHARE] = 0
    arrival = _hours(future) + delays
    equal = compared = 0
    for hour in range(first, first + COMPARED_HOURS):
        batch = _batch(future[arrival == hour], known, hour)
        push_rows(bench, batch, settings)
        known = pd.concat([known, batch]).drop_duplicates(["entity_id", "event_timestamp"], keep="last")
        write_feature_table(known, bench, settings)
        chosen = generator.choice(COMPARED_ENTITIES, COMPARED_EACH, replace=False).tolist()
        equal += _equal_windows(bench, chosen, hour, settings)
        compared += COMPARED_EACH
    return equal, compared


def _batch(arriving: pd.DataFrame, known: pd.DataFrame, hour: int) -> pd.DataFrame:
    """Return what is pushed in an hour: rows on time and late, some twice, and corrections of recent ones, shuffled."""
    recent = known[_hours(known) > hour - LATEST_BY_HOURS]
    repeated = recent.sample(int(len(arriving) * REPEATED_SHARE), random_state=hour)
    corrected = recent.sample(5, random_state=hour + 1).assign(OT=np.float32(hour))
    return pd.concat([arriving, repeated, arriving.head(10), corrected]).sample(frac=1, random_state=hour)


def _equal_windows(bench: DatasetConfig, entities: list[int], hour: int, settings: Settings) -> int:
    """Return for how many entities the online window equals the offline one at a cut-off, times and every bit."""
    from feature_platform.online_stores import COLUMNS, START

    cutoff = (START + pd.Timedelta(hours=hour)).to_pydatetime()
    online = read_windows(bench, entities, COLUMNS, COMPARED_WINDOW, settings, cutoff)
    (offline,) = offline_windows(bench, entities, [cutoff], COLUMNS, COMPARED_WINDOW, settings)
    same_times = (online.timestamps == offline.timestamps).reshape(len(entities), -1).all(axis=1)
    same_bits = online.matrix(COLUMNS).view(np.uint32) == offline.matrix(COLUMNS).view(np.uint32)
    return int((same_times & same_bits.reshape(len(entities), -1).all(axis=1)).sum())


def _hours(frame: pd.DataFrame) -> npt.NDArray[np.int64]:
    from feature_platform.online_stores import START

    return ((frame["event_timestamp"] - START) // pd.Timedelta(hours=1)).to_numpy()
