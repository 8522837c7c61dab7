"""Files of trials that are not the best: deleted, but never under the hands of a process that writes one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mlplatform.tuning.study.outcome import arrays_path, drop_arrays


def test_only_what_nobody_writes_or_needs_is_deleted(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    journal = tmp_path / "journal"
    kept, dropped = arrays_path(journal, 1), arrays_path(journal, 2)
    being_written = arrays_path(journal, 3).with_name(f"{arrays_path(journal, 3).name}.{os.getpid()}.partial")
    left_behind = arrays_path(journal, 4).with_name(f"{arrays_path(journal, 4).name}.{ended.pid}.partial")
    for path in (kept, dropped, being_written, left_behind):
        path.touch()
    drop_arrays(journal, {1})
    assert sorted(tmp_path.iterdir()) == sorted([kept, being_written])
