"""Point-in-time joins of 17,420, 348,400 and 17,420,000 rows with seven features.

Every row of a table of hourly rows is joined to itself by entity and time, as training does when it reads its history.
All contenders read the same folder of monthly Parquet files and the same entity rows. Each runs in processes of its
own, which take turns, so that peak memory is the contender's and a busy machine slows all alike. Feast's own stores
are stopped at 12 GB or after 150 seconds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
HOURS = 17_420
MOST_GB, MOST_S = 12.0, 150.0
TIME_AIM, FEAST_AIM, MEMORY_AIM_GB = 1.5, 100.0, 4.0

OURS, BARE, PANDAS = "as-of store", "bare DuckDB ASOF query", "pandas.merge_asof"
FEAST_STORES = {"Feast's DuckDB store": "duckdb", "Feast's default store": "file"}
STORES = {OURS: "mlplatform.features.asof.store.AsOfOfflineStore", **FEAST_STORES}


@dataclass(frozen=True)
class Case:
    """A table size; `rounds` processes per contender, each with `runs` timed joins after one that is not timed."""

    entities: int
    rounds: int
    runs: int
    feast_stores: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of the table, and of the join."""
        return self.entities * HOURS


CASES = (Case(1, 3, 5, tuple(FEAST_STORES)), Case(20, 3, 3, ("Feast's DuckDB store",)), Case(1_000, 2, 0))


@dataclass(frozen=True)
class Outcome:
    """What a contender took; `stopped` says why it has no result."""

    seconds: float
    peak_gb: float
    stopped: str | None = None


def run() -> None:
    """Print seconds and peak memory of every contender at every size."""
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            _write_table(Path(folder) / "table", case.entities)
            outcomes: dict[str, list[Outcome]] = {}
            for _ in range(case.rounds):
                for name in (OURS, BARE, PANDAS):
                    outcomes.setdefault(name, []).append(_contend(name, Path(folder), case.runs))
            for name in case.feast_stores:
                outcomes[name] = [_contend(name, Path(folder), 0)]
        _report(case, outcomes)


def _report(case: Case, outcomes: dict[str, list[Outcome]]) -> None:
    from figures import report

    name = f"{case.rows:,} rows x {len(COLUMNS)} features"
    seconds = {peer: statistics.median(each.seconds for each in found) for peer, found in outcomes.items()}
    for peer, found in outcomes.items():
        peak = max(each.peak_gb for each in found)
        is_judged = peer == OURS and case.entities == CASES[-1].entities
        met = peak < MEMORY_AIM_GB if is_judged else None
        aim = f"< {MEMORY_AIM_GB:g}" if is_judged else None
        report("joins", f"{name}: peak memory of {peer}", peak, "GB", aim=aim, met=met)
    for peer in [each for each in outcomes if each != OURS]:
        stopped = outcomes[peer][0].stopped
        ratio = seconds[OURS] / seconds[peer]
        aim, met = None, None
        if peer == BARE:
            aim, met = f"<= {TIME_AIM}", ratio <= TIME_AIM
        elif peer in FEAST_STORES and case.entities == 1:
            # A store that was stopped had taken that long without a result.
            aim, met = f"<= {1 / FEAST_AIM:g}", ratio <= 1 / FEAST_AIM
        text = f"{name} (the peer was stopped: {stopped})" if stopped else name
        report("joins", text, seconds[OURS], "s", peer=peer, peer_value=seconds[peer], aim=aim, met=met)


def _contend(name: str, folder: Path, runs: int) -> Outcome:
    """Run a contender in a process of its own, and stop it when it takes too much."""
    began = time.perf_counter()
    command = [sys.executable, "-W", "ignore", __file__, name, str(folder), str(runs)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = 0.0
    while child.poll() is None:
        time.sleep(0.05)
        peak = max(peak, _resident_gb(child.pid))
        elapsed = time.perf_counter() - began
        if peak > MOST_GB or elapsed > MOST_S:
            child.kill()
            child.communicate()
            why = f"more than {MOST_GB:g} GB" if peak > MOST_GB else "no result"
            return Outcome(elapsed, peak, f"{why} after {elapsed:.0f} s")
    output, errors = child.communicate()
    if child.returncode < 0:  # a signal, such as the system's when memory runs out
        return Outcome(time.perf_counter() - began, peak, f"signal {-child.returncode}")
    if child.returncode:
        raise RuntimeError(f"{name} failed:\n{errors}")
    return Outcome(**json.loads(output.splitlines()[-1]))


def _resident_gb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def _write_table(folder: Path, entities: int) -> None:
    """Write the table as the platform does: one file per month, ordered by entity and time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    rng = np.random.default_rng(0)
    times = np.datetime64("2016-07-01T00", "h") + np.arange(HOURS)
    months = times.astype("datetime64[M]")
    for month in np.unique(months):
        own = times[months == month].astype("datetime64[us]")
        size = len(own) * entities
        columns = {
            "entity_id": np.repeat(np.arange(1, entities + 1), len(own)),
            "event_timestamp": pa.array(np.tile(own, entities), pa.timestamp("us", tz="UTC")),
            **{name: rng.standard_normal(size, dtype=np.float32) for name in COLUMNS},
        }
        pq.write_table(pa.table(columns), folder / f"{month}.parquet", row_group_size=131_072)


def _join(name: str, folder: Path, runs: int) -> None:
    """Run one contender in this process and print what it took."""
    import pandas as pd
    import pyarrow.parquet as pq

    keys = pq.read_table(folder / "table", columns=["entity_id", "event_timestamp"]).to_pandas()
    wanted: pd.DataFrame = keys.sort_values(["entity_id", "event_timestamp"], ignore_index=True)
    del keys
    join = _contender(name, folder, wanted)
    seconds = []
    for position in range(max(runs, 0) + 1):
        began = time.perf_counter()
        rows = len(join())
        if position or not runs:  # where there are several runs, the first imports and fills caches
            seconds.append(time.perf_counter() - began)
        if rows != len(wanted):
            raise RuntimeError(f"{name} returned {rows} rows instead of {len(wanted)}")
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 2**20
    print(json.dumps({"seconds": statistics.median(seconds), "peak_gb": peak}))


def _contender(name: str, folder: Path, wanted: Any) -> Callable[[], Any]:
    import pandas as pd

    if name == PANDAS:

        def join_in_pandas() -> Any:
            rows = pd.read_parquet(folder / "table").sort_values("event_timestamp")
            left = wanted.reset_index().sort_values("event_timestamp")
            return pd.merge_asof(left, rows, on="event_timestamp", by="entity_id").sort_values("index")

        return join_in_pandas
    if name == BARE:
        return lambda: _bare_duckdb(folder, wanted)
    store = _feast_store(
        "mlplatform.features.asof.store.AsOfOfflineStore" if name == OURS else FEAST_STORES[name], folder
    )
    features = [f"readings:{column}" for column in COLUMNS]
    return lambda: store.get_historical_features(entity_df=wanted, features=features).to_arrow()


def _bare_duckdb(folder: Path, wanted: Any) -> Any:
    import duckdb
    import pyarrow as pa

    with duckdb.connect() as connection:
        connection.execute("SET asof_loop_join_threshold = 0")
        connection.register("wanted", pa.Table.from_pandas(wanted))
        query = connection.execute(
            f"SELECT e.*, {', '.join(COLUMNS)} FROM wanted e "  # noqa: S608  (own path)
            f"ASOF LEFT JOIN read_parquet('{folder}/table/*.parquet') f "
            "ON e.entity_id = f.entity_id AND e.event_timestamp >= f.event_timestamp"
        )
        return query.to_arrow_table()


def _feast_store(kind: str, folder: Path) -> Any:
    """Return a Feast store over the table with an offline store of the given type."""
    from mlplatform.feast_import import import_feast

    import_feast()
    import datetime as dt

    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.data_format import ParquetFormat
    from feast.types import Float32, Int64

    config = RepoConfig(
        project="joins",
        provider="local",
        registry=str(folder / f"{kind}.db"),
        offline_store={"type": kind},
        online_store=None,
        entity_key_serialization_version=3,
        coerce_tz_aware=False,
    )
    store = FeatureStore(config=config)
    entity = Entity(name="unit", join_keys=["entity_id"], value_type=ValueType.INT64)
    # Feast's DuckDB store reads no folders, but patterns.
    path = folder / "table" / "*.parquet" if kind == "duckdb" else folder / "table"
    source = FileSource(path=str(path), timestamp_field="event_timestamp", file_format=ParquetFormat())
    schema = [Field(name="entity_id", dtype=Int64), *(Field(name=name, dtype=Float32) for name in COLUMNS)]
    view = FeatureView(name="readings", entities=[entity], ttl=dt.timedelta(days=36_525), schema=schema, source=source)
    store.apply([entity, view])
    return store


if __name__ == "__main__":
    _join(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
