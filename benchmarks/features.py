"""The feature platform in figures: `python benchmarks/features.py [part ...]`; without a part, all of them.

joins    point-in-time joins beside Feast's own stores, pandas and a bare DuckDB query
windows  reading windows from SQLite and Redis beside a raw Redis read of the same bytes
push     pushing new rows into online windows, and their equality with the offline windows
growth   ingest of a large table from Parquet, then one more day
kills    kill -9 during ingest and during materialisation
replay   a Kafka topic read twice with the consumer killed midway
"""

from __future__ import annotations

import importlib
import sys

PARTS = ("joins", "windows", "push", "growth", "kills", "replay")


def main(parts: list[str]) -> int:
    """Run the named parts and return the exit status."""
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        print(f"unknown parts {', '.join(unknown)}; known: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    for part in parts or PARTS:
        importlib.import_module(f"feature_platform.{part}").run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
