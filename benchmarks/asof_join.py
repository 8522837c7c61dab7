"""Point-in-time join through Feast and the as-of store, beside a bare DuckDB `ASOF JOIN` and `pandas.merge_asof`.

Joins every row of a feature table (hourly rows, seven features) to itself by entity and time, as training does when it
reads its history. All three start from the same Parquet file and the same entity rows in memory; only the store and
pandas put the result in the order of the entity rows. The figures are medians over runs that take turns, so that a busy
machine slows all of them alike. Run as `python benchmarks/asof_join.py`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from figures import report

from mlplatform.config import DatasetConfig
from mlplatform.features.store import apply_dataset, open_store
from mlplatform.features.table import features_path, write_feature_table
from mlplatform.settings import Settings

COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
STEPS = 17_420
RUNS = 7
AIM = 1.5


def main() -> None:
    """Print one JSON line per table size and peer."""
    with tempfile.TemporaryDirectory() as home:
        settings = Settings.from_env({"MLPLATFORM_HOME": home})
        for entities in (1, 20):
            _benchmark(entities, settings)


def _benchmark(entities: int, settings: Settings) -> None:
    dataset = _dataset(f"bench_{entities}")
    write_feature_table(_raw(entities), dataset, settings)
    apply_dataset(dataset, settings)
    path = features_path(dataset, settings)
    wanted = pd.read_parquet(path, columns=["entity_id", "event_timestamp"])
    seconds = _medians(
        {
            "as-of store": lambda: _feast(dataset, wanted, settings),
            "bare DuckDB ASOF query": lambda: _duckdb(path, wanted),
            "pandas.merge_asof": lambda: _pandas(path, wanted),
        }
    )
    ours = seconds.pop("as-of store")
    for peer, theirs in seconds.items():
        is_aimed_at = "DuckDB" in peer
        report(
            "asof_join",
            f"{len(wanted)} rows x {len(COLUMNS)} features",
            ours,
            "s",
            peer=peer,
            peer_value=theirs,
            aim=f"<= {AIM}" if is_aimed_at else None,
            met=ours / theirs <= AIM if is_aimed_at else None,
        )


def _feast(dataset: DatasetConfig, wanted: pd.DataFrame, settings: Settings) -> Any:
    features = [f"{dataset.name}_features:{name}" for name in COLUMNS]
    return open_store(settings).get_historical_features(entity_df=wanted, features=features).to_arrow()


def _duckdb(path: Path, wanted: pd.DataFrame) -> Any:
    import duckdb
    import pyarrow as pa

    with duckdb.connect() as connection:
        connection.execute("SET asof_loop_join_threshold = 0")
        connection.register("wanted", pa.Table.from_pandas(wanted))
        query = connection.execute(
            f"SELECT e.*, {', '.join(COLUMNS)} FROM wanted e ASOF LEFT JOIN read_parquet('{path}') f "  # noqa: S608  (own path)
            "ON e.entity_id = f.entity_id AND e.event_timestamp >= f.event_timestamp"
        )
        return query.to_arrow_table()


def _pandas(path: Path, wanted: pd.DataFrame) -> Any:
    rows = pd.read_parquet(path).sort_values("event_timestamp")
    joined = pd.merge_asof(
        wanted.reset_index().sort_values("event_timestamp"), rows, on="event_timestamp", by="entity_id"
    )
    return joined.sort_values("index")


def _medians(contenders: dict[str, Callable[[], Any]]) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for run in range(RUNS + 1):
        for name, join in contenders.items():
            began = time.perf_counter()
            join()
            if run:  # the first run imports and fills caches
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _raw(entities: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    hours = pd.date_range("2016-07-01", periods=STEPS, freq="h", tz="UTC")
    frame = pd.DataFrame(
        {"entity_id": np.repeat(np.arange(1, entities + 1), STEPS), "event_timestamp": np.tile(hours, entities)}
    )
    return frame.assign(**{name: rng.normal(size=len(frame)).astype(np.float32) for name in COLUMNS})


def _dataset(name: str) -> DatasetConfig:
    return DatasetConfig.model_validate(
        {
            "name": name,
            "kind": "timeseries",
            "source": {"uri": "unused.csv"},
            "time_column": "date",
            "frequency": "1h",
            "window_steps": 336,
            "columns": {name: {} for name in COLUMNS},
        }
    )


if __name__ == "__main__":
    main()
