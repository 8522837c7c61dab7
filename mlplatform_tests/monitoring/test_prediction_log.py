"""The prediction log keeps every prediction it can, never blocks, and is readable whatever happened to its files."""

from __future__ import annotations

import datetime as dt
import logging
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlplatform.monitoring.prediction_log import COLUMNS, PredictionLog, ServedPredictions, read_predictions
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


def wait_for_rows(log: PredictionLog, rows: int) -> None:
    deadline = time.monotonic() + 20
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
    slow = PredictionLog._write

    def write_slowly(self: PredictionLog, *args: object) -> None:
        time.sleep(0.3)
        slow(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(PredictionLog, "_write", write_slowly)
    started = time.perf_counter()
    for number in range(100):
        log.append(forecasts(f"r{number}"))
    assert time.perf_counter() - started < 0.2
    log.close()
    assert read_predictions(settings, EXPERIMENT).request_id.nunique() == 100
