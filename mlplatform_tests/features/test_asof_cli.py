"""The as-of store works from `feature_store.yaml` alone, with the plain `feast` command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from feast.cli.cli import cli

from mlplatform.testing import forks
from mlplatform_tests.features.asof_yard import machines

CONFIG = """
project: plain
provider: local
registry: registry.db
offline_store:
  type: mlplatform.features.asof.store.AsOfOfflineStore
online_store:
  type: sqlite
  path: online.db
entity_key_serialization_version: 3
"""

DEFINITIONS = """
from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Int64

machine = Entity(name="machine", join_keys=["machine_id"], value_type=ValueType.INT64)
stats = FeatureView(
    name="stats",
    entities=[machine],
    ttl=timedelta(days=3650),
    schema=[Field(name="machine_id", dtype=Int64), Field(name="value", dtype=Int64)],
    source=FileSource(name="stats_source", path="data", timestamp_field="at"),
)
"""


def feast(repo: Path, *arguments: str) -> str:
    """Run the command in a repository, as a process of its own, and return what it printed."""
    command = Path(sys.executable).with_name("feast")
    done = subprocess.run([command, *arguments], cwd=repo, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def feast_here(repo: Path, *arguments: str) -> str:
    """Run the command's own function in this process, where Feast is imported already."""
    done = CliRunner().invoke(cli, ["--chdir", str(repo), *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def answer(printed: str, opening: str) -> Any:
    return json.loads(printed[printed.index(f"{opening}\n") :])


@pytest.mark.integration
def test_the_feast_command_needs_nothing_but_the_class_path(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text(CONFIG)
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    (tmp_path / "data").mkdir()
    for number, rows in enumerate(([(1, 0, 10), (2, 0, 20)], [(1, 60, 11)])):
        table = pa.Table.from_pandas(machines(rows), preserve_index=False)
        pq.write_table(table, tmp_path / "data" / f"{number}.parquet")

    # This, a fork of a process that has imported Feast; what uses the store, as a shell starts it.
    applied = forks.run(["feast", "apply"], folder=tmp_path)
    assert applied.returncode == 0, applied.stdout + applied.stderr
    assert "stats" in applied.stdout
    assert "stats" in feast_here(tmp_path, "feature-views", "list")

    wanted = [{"machine_id": 1, "event_timestamp": f"2024-01-01T0{hour}:30:00"} for hour in (0, 1)]
    printed = feast(tmp_path, "get-historical-features", "-d", json.dumps(wanted), "-f", "stats:value")
    assert [row["value"] for row in answer(printed, "[")] == [10, 11]

    online = ("get-online-features", "-e", "machine_id=1", "-e", "machine_id=2", "-f", "stats:value")
    feast_here(tmp_path, "materialize", "2023-12-31T00:00:00", "2024-01-01T00:30:00")
    assert answer(feast_here(tmp_path, *online), "{")["value"] == [10, 20]
    feast_here(tmp_path, "materialize-incremental", "2024-01-02T00:00:00")
    assert answer(feast_here(tmp_path, *online), "{")["value"] == [11, 20]
