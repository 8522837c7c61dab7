"""Compaction changes how many files a log has and nothing that is read, whoever reads, writes or dies meanwhile."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from mlplatform.monitoring.prediction_log import (
    PredictionLog,
    ServedPredictions,
    compaction,
    maintain_predictions,
    prediction_batches,
    read_predictions,
    summarise_predictions,
)
from mlplatform.monitoring.prediction_log.parts import manifest_of, read_manifest
from mlplatform.settings import Settings

EXPERIMENT = "tiny"
DAY = dt.timedelta(days=1)
NOW = dt.datetime(2026, 3, 10, 9, tzinfo=dt.UTC)
YESTERDAY = NOW - DAY
CHANGES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return at(tmp_path / "home")


def at(home: Path, **variables: str) -> Settings:
    return Settings.from_env({"MLPLATFORM_HOME": str(home), **variables})


def served(request_id: str, served_at: dt.datetime) -> ServedPredictions:
    origins = np.array(["2026-03-01"], "datetime64[ns]")
    return ServedPredictions(
        served_at=served_at,
        request_id=request_id,
        version=1,
        pair_id="p1",
        entity_ids=["a"],
        origins=origins,
        targets=("y",),
        steps=np.zeros(1, np.int64),
        timestamps=origins[:, None],
        values=np.ones((1, 1, 1)),
    )


def write(settings: Settings, served_at: dt.datetime, *request_ids: str) -> None:
    """Leave a part file per request, as a server does that is asked little."""
    log = PredictionLog(settings, EXPERIMENT, flush_interval_s=3600)
    for number, request_id in enumerate(request_ids):
        log.append(served(request_id, served_at + dt.timedelta(seconds=number)))
        log.flush()
    log.close()


def files(settings: Settings, suffix: str = ".parquet") -> dict[str, int]:
    """Return how many files each day has."""
    folder = settings.predictions_dir / EXPERIMENT
    return {day.name: len(list(day.glob(f"*{suffix}"))) for day in sorted(folder.glob("date=*"))}


def ids(settings: Settings) -> list[str]:
    names: list[str] = read_predictions(settings, EXPERIMENT).request_id.tolist()
    return names


def test_past_days_become_one_file_and_read_the_same(settings: Settings) -> None:
    write(settings, YESTERDAY - DAY, "a", "b", "c")
    write(settings, YESTERDAY, "d", "e")
    write(settings, NOW, "f", "g")
    before = read_predictions(settings, EXPERIMENT)
    done = maintain_predictions(settings, EXPERIMENT, NOW)
    assert (done.replaced_files, done.deleted_days) == (5, 0)
    assert files(settings) == {"date=2026-03-08": 1, "date=2026-03-09": 1, "date=2026-03-10": 2}
    assert sum(files(settings, ".json").values()) == 0
    pd.testing.assert_frame_equal(read_predictions(settings, EXPERIMENT), before)
    assert maintain_predictions(settings, EXPERIMENT, NOW).replaced_files == 0


def test_what_a_server_writes_late_joins_the_compacted_part(settings: Settings) -> None:
    write(settings, YESTERDAY, "a", "b")
    maintain_predictions(settings, EXPERIMENT, NOW)
    write(settings, YESTERDAY + dt.timedelta(minutes=1), "late")
    assert ids(settings) == ["a", "b", "late"]
    assert maintain_predictions(settings, EXPERIMENT, NOW).replaced_files == 2
    assert (ids(settings), files(settings)) == (["a", "b", "late"], {"date=2026-03-09": 1})


def test_files_that_are_large_stay_as_they_are(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "COMPACTED_ROWS", 4)
    write(settings, YESTERDAY, *"abcdefg")
    assert maintain_predictions(settings, EXPERIMENT, NOW).replaced_files == 7
    assert files(settings) == {"date=2026-03-09": 2}
    assert maintain_predictions(settings, EXPERIMENT, NOW).replaced_files == 0
    assert ids(settings) == list("abcdefg")


def test_days_beyond_the_retention_are_deleted(tmp_path: Path) -> None:
    settings = at(tmp_path, MLPLATFORM_PREDICTION_LOG_RETENTION_DAYS="2")
    for age in range(5):
        write(settings, NOW - age * DAY, f"a{age}", f"b{age}")
    maintain_predictions(at(tmp_path), EXPERIMENT, NOW)
    assert len(ids(settings)) == 10
    assert maintain_predictions(settings, EXPERIMENT, NOW).deleted_days == 2
    assert ids(settings) == ["a2", "b2", "a1", "b1", "a0", "b0"]
    assert list(files(settings)) == ["date=2026-03-08", "date=2026-03-09", "date=2026-03-10"]


@pytest.mark.parametrize("days", ["0", "-1", "soon"])
def test_a_retention_that_is_no_number_of_days_is_refused(tmp_path: Path, days: str) -> None:
    with pytest.raises(ValueError, match=f"MLPLATFORM_PREDICTION_LOG_RETENTION_DAYS must be .* but is '{days}'"):
        at(tmp_path, MLPLATFORM_PREDICTION_LOG_RETENTION_DAYS=days)


def test_files_that_cannot_be_read_or_hold_more_are_left_alone(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    write(settings, YESTERDAY, "a", "b", "c")
    day = settings.predictions_dir / EXPERIMENT / "date=2026-03-09"
    (day / "torn.parquet").write_bytes(b"PAR1")
    richer = pq.read_table(sorted(day.glob("[0-9a-f]*.parquet"))[0], partitioning=None)
    pq.write_table(richer.append_column("from_later_versions", richer["value"]), day / "later.parquet")
    assert maintain_predictions(settings, EXPERIMENT, NOW).replaced_files == 3
    assert "torn.parquet" in caplog.text
    assert {path.name for path in day.glob("*.parquet")} > {"torn.parquet", "later.parquet"}
    assert len(ids(settings)) == 4


def test_a_part_that_breaks_while_it_is_joined_is_left_alone(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    write(settings, YESTERDAY, "a", "b", "c")
    day = settings.predictions_dir / EXPERIMENT / "date=2026-03-09"
    broken = min(day.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    content = bytearray(broken.read_bytes())
    content[4:300] = b"\xff" * 296
    broken.write_bytes(content)
    os.utime(broken, (0, 0))
    assert maintain_predictions(settings, EXPERIMENT, NOW).replaced_files == 2
    assert f"left {broken} as it is" in caplog.text
    assert broken in day.iterdir()
    assert ids(settings) == ["b", "c"]


def run_and_die(settings: Settings, step: int) -> bool:
    """Maintain the log in a process that is killed before its step-th change of a file; return whether it came that
    far."""
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if event in CHANGES and str(settings.home) in str(arguments[0]):
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        maintain_predictions(settings, EXPERIMENT, NOW)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_a_kill_at_any_moment_loses_and_repeats_nothing(tmp_path: Path) -> None:
    first = at(tmp_path / "first")
    write(first, YESTERDAY - DAY, "a", "b", "c")
    maintain_predictions(first, EXPERIMENT, NOW)
    write(first, YESTERDAY - DAY + dt.timedelta(minutes=1), "late")
    write(first, YESTERDAY, "d", "e")
    step, seen = 1, set()
    while True:
        settings = at(tmp_path / f"killed_{step}")
        shutil.copytree(first.home, settings.home)
        if not run_and_die(settings, step):
            break
        assert ids(settings) == ["a", "b", "c", "late", "d", "e"], step
        seen.add((sum(files(settings).values()), sum(files(settings, ".json").values())))
        maintain_predictions(settings, EXPERIMENT, NOW)
        assert ids(settings) == ["a", "b", "c", "late", "d", "e"], step
        assert set(files(settings).values()) == {1}
        assert sum(files(settings, ".json").values()) == 0
        step += 1
    # It was killed with nothing done, before and after the commit, and among the deletions of both days.
    assert seen >= {(4, 0), (4, 1), (5, 1), (3, 1), (2, 1)}


def test_a_kill_while_days_are_deleted_brings_no_row_back_twice(tmp_path: Path) -> None:
    first = at(tmp_path / "first")
    write(first, NOW - 9 * DAY, "a", "b")
    write(first, NOW, "new")
    step = 1
    while True:
        settings = at(tmp_path / f"killed_{step}", MLPLATFORM_PREDICTION_LOG_RETENTION_DAYS="3")
        shutil.copytree(first.home, settings.home)
        if not run_and_die(settings, step):
            break
        left = ids(settings)
        assert (len(set(left)), left[-1]) == (len(left), "new"), step
        maintain_predictions(settings, EXPERIMENT, NOW)
        assert (ids(settings), len(files(settings))) == (["new"], 1)
        step += 1
    assert step > 4


@pytest.mark.parametrize("damaged", ["", "{", "{}", "[1]"])
def test_a_manifest_that_cannot_be_read_replaces_nothing(tmp_path: Path, damaged: str) -> None:
    compacted = tmp_path / "compacted-1.parquet"
    manifest_of(compacted).write_text(damaged)
    assert read_manifest(compacted) == []
    manifest_of(compacted).write_text('["a.parquet"]')
    assert read_manifest(compacted) == ["a.parquet"]


def test_readers_finish_what_they_began(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "READERS_WAIT_S", 0.0)
    write(settings, YESTERDAY, "a", "b", "c")
    reader = prediction_batches(settings, EXPERIMENT, columns=["request_id"])
    seen = [next(reader)]
    assert maintain_predictions(settings, EXPERIMENT, NOW).replaced_files == 3
    assert files(settings) == {"date=2026-03-09": 4}
    assert sorted(ids(settings)) == ["a", "b", "c"]
    seen += reader
    assert sorted(row for batch in seen for row in batch["request_id"].to_pylist()) == ["a", "b", "c"]
    maintain_predictions(settings, EXPERIMENT, NOW)
    assert (files(settings), ids(settings)) == ({"date=2026-03-09": 1}, ["a", "b", "c"])


def test_servers_readers_and_two_compactions_at_once(settings: Settings) -> None:
    written: list[str] = []
    errors: list[BaseException] = []
    end = time.monotonic() + 1.5

    def guarded(work: object) -> threading.Thread:
        def run() -> None:
            try:
                while time.monotonic() < end:
                    work()  # type: ignore[operator]
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def serve() -> None:
        name = f"r{len(written)}"
        write(settings, YESTERDAY, name)
        written.append(name)

    def read() -> None:
        known = list(written)
        found = ids(settings)
        assert len(set(found)) == len(found)
        assert set(known) <= set(found)

    threads = [
        guarded(work) for work in (serve, read, read, *[lambda: maintain_predictions(settings, EXPERIMENT, NOW)] * 2)
    ]
    for thread in threads:
        thread.join()
    assert errors == []
    maintain_predictions(settings, EXPERIMENT, NOW)
    assert sorted(ids(settings)) == sorted(written)
    assert files(settings) == {"date=2026-03-09": 1}


def test_the_summary_counts_requests_by_their_rows_that_follow_each_other(settings: Settings) -> None:
    assert summarise_predictions(settings, EXPERIMENT).last_served is None
    write(settings, YESTERDAY, "a", "b", "c")
    write(settings, NOW, "d", "d")
    maintain_predictions(settings, EXPERIMENT, NOW)
    summary = summarise_predictions(settings, EXPERIMENT)
    assert (summary.rows, summary.values, summary.last_served) == (5, {1: 5}, NOW + dt.timedelta(seconds=1))
    assert summary.requests == {1: 4}
