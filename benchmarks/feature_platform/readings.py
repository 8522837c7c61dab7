"""The data of the benchmarks: hourly readings with seven columns, shaped like ETTh1, for any number of entities."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlplatform.config import DatasetConfig

COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
HOURS = 17_420
START = np.datetime64("2016-07-01T00", "h")


def readings_dataset(folder: Path, name: str = "readings", window_steps: int = 720) -> DatasetConfig:
    """Return the dataset of the Parquet files in a folder."""
    return DatasetConfig.model_validate(
        {
            "name": name,
            "source": {"uri": f"parquet://{folder}"},
            "time_column": "time",
            "entity_column": "unit",
            "frequency": "1h",
            "window_steps": window_steps,
            "columns": {column: {} for column in COLUMNS},
        }
    )


def write_readings(folder: Path, entities: int, first_hour: int, hours: int) -> int:
    """Write consecutive hours of all entities as one Parquet file per month, and return the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(first_hour)
    times = START + np.arange(first_hour, first_hour + hours)
    months = times.astype("datetime64[M]")
    for month in np.unique(months):
        own = times[months == month]
        size = len(own) * entities
        # In the order of time, as rows are collected.
        columns = {
            "time": pa.array(np.repeat(own.astype("datetime64[us]"), entities), pa.timestamp("us", tz="UTC")),
            "unit": np.tile(np.arange(1, entities + 1), len(own)),
            **{name: rng.standard_normal(size, dtype=np.float32) for name in COLUMNS},
        }
        pq.write_table(pa.table(columns), folder / f"{own[0]}.parquet".replace(":", ""))
    return hours * entities
