"""The prediction log keeps every prediction it can, never blocks, and is readable whatever happened to its files."""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlplatform.monitoring.prediction_log import COLUMNS, PredictionLog, ServedPredictions, log_table, read_predictions
from mlplatform.monitoring.prediction_log.buffer import Piece
from mlplatform.settings import Settings

SERVED = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
EXPERIMENT = "tiny"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)})


def forecasts(request_id: str = "r1", served_at: dt.datetime = SERVED, entities: int = 2) -> ServedPredictions:
    """Forecasts of two targets over three hours; every value tells its place."""
    origins = np.full(entities, np.datetime64("2026-03-01T11:00", "ns"))
    steps = np.arange(1, 4)
    return ServedPredictions(
        served_at=served_at,
        request_id=request_id,
        version=3,
        pair_id="p3",
        entity_ids=[str(entity) for entity in range(entities)],
        origins=origins,
        targets=("load", "oil"),
        steps=steps,
        timestamps=origins[:, None] + steps * np.timedelta64(1, "h"),
        values=np.arange(entities * 6, dtype=np.float32).reshape(entities, 3, 2),
    )


def part_files(settings: Settings) -> list[Path]:
    return sorted((settings.predictions_dir / EXPERIMENT).rglob("*.parquet"))


def test_one_row_per_entity_step_and_target(settings: Settings) -> None:
    log = PredictionLog(settings, EXPERIMENT)
    log.append(forecasts())
    log.close()
    frame = read_predictions(settings, EXPERIMENT)
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) == 12
    row = frame[(frame.entity_id == "1") & (frame.step == 2) & (frame.target == "oil")].iloc[0]
    assert row.value == 9.0
    assert row.event_timestamp == pd.Timestamp("2026-03-01T13:00Z")
    assert row.origin == pd.Timestamp("2026-03-01T11:00Z")
    assert (row.version, row.pair_id, row.request_id, row.experiment) == (3, "p3", "r1", EXPERIMENT)
    assert row.served_at == pd.Timestamp(SERVED)
    assert pd.isna(row.label)


def test_a_class_is_logged_with_its_probability(settings: Settings) -> None:
    log = PredictionLog(settings, EXPERIMENT)
    origins = np.array(["2026-03-01", "2026-03-01"], dtype="datetime64[ns]")
    log.append(
        ServedPredictions(
            served_at=SERVED,
            request_id="r1",
            version=1,
            pair_id="p1",
            entity_ids=["a", "b"],
            origins=origins,
            targets=("diagnosis",),
            steps=np.zeros(1, np.int64),
            timestamps=origins[:, None],
            values=np.array([0.9, 0.6]).reshape(2, 1, 1),
            labels=["benign", "malignant"],
        )
    )
    log.flush()
    frame = read_predictions(settings, EXPERIMENT)
    log.close()
    assert frame[["entity_id", "target", "step", "label", "value"]].to_numpy().tolist() == [
        ["a", "diagnosis", 0, "benign", 0.9],
        ["b", "diagnosis", 0, "malignant", 0.6],
    ]


def various() -> list[ServedPredictions]:
    """Requests that differ in entities, steps and targets, with and without labels and times."""
    table = ServedPredictions(
        served_at=SERVED + dt.timedelta(microseconds=1),
        request_id="table",
        version=9,
        pair_id="p9",
        entity_ids=["a", "b", "c"],
        origins=np.array(["2026-03-01", "NaT", "2026-03-02"], "datetime64[ns]"),
        targets=("diagnosis",),
        steps=np.zeros(1, np.int64),
        timestamps=np.array([["2026-03-01"], ["NaT"], ["2026-03-02"]], "datetime64[s]"),
        values=np.array([0.1, 0.2, np.nan]).reshape(3, 1, 1),
        labels=["x", "y", "x"],
    )
    short = forecasts("short", entities=1)
    one_target = dataclasses.replace(
        short,
        request_id="one",
        targets=("oil",),
        values=short.values[:, :, :1],
        observed=np.array([0.75]),
        is_fallback=np.array([True]),
    )
    whole = forecasts("r2", entities=3)
    rich = dataclasses.replace(
        whole,
        lower=whole.values - 1,
        upper=np.where(np.arange(3)[:, None, None] == 1, np.nan, whole.values + 1),
        coverage=0.9,
        observed=np.array([1.0, 0.5, 0.25]),
        is_fallback=np.array([False, True, False]),
        arm="challenger",
        age_seconds=np.array([60.0, np.nan, 1.5]),
    )
    return [forecasts(), table, forecasts("none", entities=0), one_target, rich]


def test_requests_written_together_make_the_rows_that_each_makes_alone() -> None:
    requests = various()
    alone = pa.concat_tables([log_table(EXPERIMENT, [request]) for request in requests])
    together = log_table(EXPERIMENT, requests)
    # The rows without a time hold nulls; a NaN is a value.
    assert together.to_pylist()[:14] == alone.to_pylist()[:14]
    assert together.slice(15).to_pylist() == alone.slice(15).to_pylist()
    assert together["value"].null_count == 0
    rows = together.to_pandas()
    assert rows.groupby("request_id", sort=False).size().to_dict() == {"r1": 12, "table": 3, "one": 3, "r2": 18}
    assert rows[rows.request_id == "table"][["entity_id", "label", "version"]].to_numpy().tolist() == [
        ["a", "x", 9],
        ["b", "y", 9],
        ["c", "x", 9],
    ]
    assert rows[rows.request_id == "one"][["target", "step", "value"]].to_numpy().tolist() == [
        ["oil", 1, 0.0],
        ["oil", 2, 2.0],
        ["oil", 3, 4.0],
    ]
    last = rows.iloc[-1]
    assert (last.entity_id, last.step, last.target, last.value) == ("2", 3, "oil", 17.0)
    assert (last.lower, last.upper, last.coverage, last.age_seconds, last.arm) == (16, 18, 0.9, 1.5, "challenger")
    assert rows.groupby("request_id").arm.first()["table"] == "production"
    # What a request does not tell is unknown, whatever its neighbours tell.
    told = together.select(["request_id", "entity_id", "upper", "coverage", "observed", "is_fallback", "age_seconds"])
    assert [list(row.values())[2:] for row in told.to_pylist() if row["request_id"] == "r1"] == [[None] * 5] * 12
    assert {tuple(row.values())[3:] for row in told.to_pylist() if row["request_id"] == "one"} == {
        (None, 0.75, True, None)
    }
    assert {tuple(row.values())[2:] for row in told.to_pylist() if row["entity_id"] == "1"} >= {
        (None, 0.9, 0.5, True, None)
    }


def test_a_request_that_is_written_with_many_costs_little_beside_one_that_is_written_alone() -> None:
    origins = np.array(["2026-03-01"], "datetime64[ns]")
    row = dataclasses.replace(
        various()[1],
        entity_ids=["a"],
        origins=origins,
        timestamps=origins[:, None],
        values=np.ones((1, 1, 1), np.float32),
        labels=None,
    )
    requests = [dataclasses.replace(row, request_id=f"r{number}") for number in range(1000)]

    def seconds(count: int) -> float:
        began = time.thread_time()
        log_table(EXPERIMENT, requests[:count])
        return time.thread_time() - began

    together = min(seconds(len(requests)) for _ in range(5)) / len(requests)
    alone = min(seconds(1) for _ in range(20))
    assert together < alone / 10


def test_predictions_that_no_file_can_hold_cost_only_themselves(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    log = PredictionLog(settings, EXPERIMENT, flush_interval_s=3600)
    broken = dataclasses.replace(forecasts("broken"), entity_ids=["only one"])
    for request in (forecasts("r1"), broken, forecasts("r2")):
        log.append(request)
    log.flush()
    assert (log.written_rows, log.dropped_rows, log.buffered_rows) == (24, 12, 0)
    assert "request 'broken' has values of shape (2, 3, 2), but 1 entities" in caplog.text
    log.close()
    assert read_predictions(settings, EXPERIMENT).request_id.unique().tolist() == ["r1", "r2"]


def test_a_part_file_holds_a_bounded_number_of_rows(settings: Settings) -> None:
    log = PredictionLog(settings, EXPERIMENT, flush_interval_s=3600, flush_rows=1_000_000)
    for number in range(5):
        log.append(forecasts(f"r{number}", entities=4_000))
    log.close()
    assert sorted(pq.read_metadata(path).num_rows for path in part_files(settings)) == [24_000, 48_000, 48_000]


def test_without_a_log_the_frame_is_empty_and_has_the_columns(settings: Settings) -> None:
    frame = read_predictions(settings, EXPERIMENT)
    assert frame.empty
    assert tuple(frame.columns) == COLUMNS
    assert str(frame.served_at.dtype) == "datetime64[ns, UTC]"


def test_files_lie_under_the_day_they_were_served(settings: Settings) -> None:
    log = PredictionLog(settings, EXPERIMENT)
    log.append(forecasts("r1", SERVED))
    log.append(forecasts("r2", SERVED + dt.timedelta(days=1)))
    log.close()
    assert [path.parent.name for path in part_files(settings)] == ["date=2026-03-01", "date=2026-03-02"]


def test_since_leaves_out_what_was_served_earlier(settings: Settings) -> None:
    log = PredictionLog(settings, EXPERIMENT)
    for hours, request_id in ((0, "r1"), (1, "r2"), (36, "r3")):
        log.append(forecasts(request_id, SERVED + dt.timedelta(hours=hours)))
    log.close()
    frame = read_predictions(settings, EXPERIMENT, since=SERVED + dt.timedelta(hours=1))
    assert frame.request_id.unique().tolist() == ["r2", "r3"]


def test_until_leaves_out_what_was_served_then_or_later(settings: Settings) -> None:
    log = PredictionLog(settings, EXPERIMENT)
    for hours, request_id in ((0, "r1"), (1, "r2"), (36, "r3")):
        log.append(forecasts(request_id, SERVED + dt.timedelta(hours=hours)))
    log.close()
    frame = read_predictions(settings, EXPERIMENT, until=SERVED + dt.timedelta(hours=1))
    assert frame.request_id.unique().tolist() == ["r1"]


def test_only_the_asked_days_and_columns_are_read(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    log = PredictionLog(settings, EXPERIMENT)
    for days in range(3):
        log.append(forecasts(f"r{days}", SERVED + dt.timedelta(days=days)))
    log.close()
    first, second, third = part_files(settings)
    first.write_bytes(b"torn")
    third.write_bytes(b"torn")
    places = [index for index, name in enumerate(COLUMNS) if name == "value"]
    chunk = pq.read_metadata(second).row_group(0).column(places[0])
    content = bytearray(second.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    second.write_bytes(content)
    day = dt.timedelta(days=1)
    since, until = SERVED + day, SERVED + day + dt.timedelta(hours=1)
    frame = read_predictions(settings, EXPERIMENT, since, until, ["request_id", "step"])
    assert frame.request_id.tolist() == ["r1"] * 12
    assert list(frame.columns) == ["request_id", "step"]
    assert caplog.text == ""
    # The broken column and the broken days cost their parts as soon as they are asked for.
    assert read_predictions(settings, EXPERIMENT).empty
    assert all(path.name in caplog.text for path in (first, second, third))


def test_a_column_that_the_log_does_not_have_is_refused(settings: Settings) -> None:
    with pytest.raises(ValueError, match=r"no column 'truth'; it has served_at, request_id"):
        read_predictions(settings, EXPERIMENT, columns=["truth"])


def test_files_of_earlier_versions_read_on(settings: Settings) -> None:
    log = PredictionLog(settings, EXPERIMENT)
    log.append(various()[-1])
    log.close()
    (path,) = part_files(settings)
    new = pq.read_table(path, partitioning=None)
    pq.write_table(new.select(COLUMNS[:12]), path.with_name("earlier.parquet"))
    frame = read_predictions(settings, EXPERIMENT)
    assert (len(frame), COLUMNS[11]) == (36, "label")
    assert frame.groupby("is_fallback", dropna=False).size().tolist() == [12, 6, 18]
    assert frame[frame.arm.isna()][list(COLUMNS[12:])].isna().all(axis=None)


def test_a_torn_file_is_skipped_by_name(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    log = PredictionLog(settings, EXPERIMENT)
    log.append(forecasts("r1"))
    log.flush()
    log.append(forecasts("r2"))
    log.close()
    torn = part_files(settings)[0]
    torn.write_bytes(torn.read_bytes()[:200])
    (torn.parent / "empty.parquet").touch()
    pd.DataFrame({"other": [1]}).to_parquet(torn.parent / "foreign.parquet")
    with caplog.at_level(logging.WARNING):
        frame = read_predictions(settings, EXPERIMENT)
    assert len(frame) == 12
    for name in (torn.name, "empty.parquet", "foreign.parquet"):
        assert name in caplog.text


def test_closing_writes_what_is_buffered_and_leaves_no_temporary_file(settings: Settings) -> None:
    log = PredictionLog(settings, EXPERIMENT, flush_interval_s=3600)
    for number in range(50):
        log.append(forecasts(f"r{number}"))
    assert part_files(settings) == []
    log.close()
    assert read_predictions(settings, EXPERIMENT).request_id.nunique() == 50
    assert [path.suffix for path in part_files(settings)[0].parent.iterdir()] == [".parquet"]
    assert (log.written_rows, log.buffered_rows, log.dropped_rows) == (600, 0, 0)


def wait_for_rows(log: PredictionLog, rows: int, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while log.written_rows < rows and time.monotonic() < deadline:
        time.sleep(0.01)


def test_the_interval_writes_without_a_flush(settings: Settings) -> None:
    log = PredictionLog(settings, EXPERIMENT, flush_interval_s=0.05)
    log.append(forecasts())
    wait_for_rows(log, 12)
    assert len(read_predictions(settings, EXPERIMENT)) == 12
    log.close()


def test_many_rows_write_before_the_interval(settings: Settings) -> None:
    log = PredictionLog(settings, EXPERIMENT, flush_rows=24, flush_interval_s=3600)
    log.append(forecasts("r1"))
    log.append(forecasts("r2"))
    wait_for_rows(log, 24)
    assert len(read_predictions(settings, EXPERIMENT)) == 24
    log.close()


def test_a_full_buffer_drops_the_oldest_and_counts_them(settings: Settings) -> None:
    log = PredictionLog(settings, EXPERIMENT, flush_interval_s=3600, max_rows=30)
    for number in range(5):
        log.append(forecasts(f"r{number}"))
    assert (log.buffered_rows, log.dropped_rows) == (24, 36)
    log.close()
    assert read_predictions(settings, EXPERIMENT).request_id.unique().tolist() == ["r3", "r4"]


def test_a_failing_disk_keeps_the_predictions_for_the_next_attempt(settings: Settings) -> None:
    log = PredictionLog(settings, EXPERIMENT, flush_interval_s=3600)
    settings.predictions_dir.mkdir(parents=True)
    blocker = settings.predictions_dir / EXPERIMENT
    blocker.write_text("a file where the folder should be")
    log.append(forecasts("r1"))
    log.append(forecasts("r2"))
    with pytest.raises(OSError, match=EXPERIMENT):
        log.flush()
    assert (log.buffered_rows, log.written_rows, log.dropped_rows) == (24, 0, 0)
    blocker.unlink()
    log.close()
    assert read_predictions(settings, EXPERIMENT).request_id.unique().tolist() == ["r1", "r2"]


def test_after_closing_predictions_are_counted_as_dropped(settings: Settings) -> None:
    log = PredictionLog(settings, EXPERIMENT)
    log.close()
    log.append(forecasts())
    assert log.dropped_rows == 12


def test_appending_does_not_wait_for_the_disk(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    log = PredictionLog(settings, EXPERIMENT, flush_rows=1)
    write = PredictionLog._write

    def write_slowly(self: PredictionLog, piece: Piece) -> None:
        time.sleep(0.3)
        write(self, piece)

    monkeypatch.setattr(PredictionLog, "_write", write_slowly)
    started = time.perf_counter()
    for number in range(100):
        log.append(forecasts(f"r{number}"))
    assert time.perf_counter() - started < 0.2
    log.close()
    assert read_predictions(settings, EXPERIMENT).request_id.nunique() == 100


FULL_DISK = """
import resource, signal, sys
from mlplatform.monitoring.prediction_log import PredictionLog
from mlplatform.settings import Settings
from mlplatform_tests.monitoring.test_prediction_log import forecasts, wait_for_rows

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
log = PredictionLog(Settings.from_env({"MLPLATFORM_HOME": sys.argv[1]}), "tiny", flush_interval_s=0.1)
log.append(forecasts("r1"))
wait_for_rows(log, 1, seconds=1)
assert (log.written_rows, log.dropped_rows) == (0, 0)
log.append(forecasts("r2"))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
wait_for_rows(log, 24)
assert (log.written_rows, log.buffered_rows, log.dropped_rows) == (24, 0, 0)
"""


def test_rows_flow_again_when_a_full_disk_has_space(settings: Settings) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(settings.home)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stderr
    assert sorted(read_predictions(settings, EXPERIMENT).request_id) == ["r1"] * 12 + ["r2"] * 12
    assert all(path.suffix == ".parquet" for path in part_files(settings)[0].parent.iterdir())
