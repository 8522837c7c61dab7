"""The table of forecast errors equals what plain Python makes of the same history, whatever the order and the kills."""

from __future__ import annotations

import datetime as dt
import os
import random
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from mlplatform.config import ExperimentConfig
from mlplatform.data import ingest
from mlplatform.features.tables import update_feature_table
from mlplatform.monitoring.forecast_errors import (
    followed_forecasts,
    newest_moment,
    recent_error,
    summarise_errors,
    update_errors,
)
from mlplatform.monitoring.forecast_errors import update as update_module
from mlplatform.monitoring.forecast_errors.pieces import pieces
from mlplatform.monitoring.prediction_log import PredictionLog, ServedPredictions, maintain_predictions
from mlplatform.registry import Contract
from mlplatform.settings import Settings
from mlplatform.testing.forks import Fork
from mlplatform.testing.meters import meter_rows, meter_yard, write_rows
from mlplatform.testing.yard import Yard
from serving.answers import to_json
from serving.cockpit.recent import read_followed, read_live

HOUR = pd.Timedelta(hours=1)
SEASON, HORIZON, COVERAGE = 24, 6, 0.8
BASELINES = [{"name": "seasonal_naive", "params": {"season": SEASON}}]
Key = tuple[str, pd.Timestamp]


@dataclass
class Plant:
    """Meters whose rows arrive late and are corrected, forecasts of them that are logged; all of it in Python, too.

    Attributes:
        values: what the source says now.
        stood: what it said before, and until when.
        served: one entry per prediction.
    """

    yard: Yard
    values: dict[Key, float] = field(default_factory=dict)
    stood: dict[Key, list[tuple[pd.Timestamp, float | None]]] = field(default_factory=dict)
    served: list[dict[str, Any]] = field(default_factory=list)

    @property
    def config(self) -> ExperimentConfig:
        return self.yard.config

    @property
    def settings(self) -> Settings:
        return self.yard.settings

    def end(self) -> pd.Timestamp:
        return max(time for _, time in self.values)

    def rows_arrive(self, changes: Mapping[Key, float]) -> None:
        """Have the source say other values."""
        before, end = dict(self.values), self.end() if self.values else None
        self.values |= changes
        rows = [
            {"time": f"{time:%Y-%m-%dT%H:%M:%SZ}", "line": line, "load": v} for (line, time), v in self.values.items()
        ]
        write_rows(self.yard, pd.DataFrame(rows).sort_values(["line", "time"]))
        ingest(self.config.dataset, self.settings)
        update_feature_table(self.config.dataset, self.settings)
        until = pd.Timestamp.now(tz="UTC")
        for key, value in changes.items():
            if end is not None and key[1] <= end and before.get(key) != value:
                self.stood.setdefault(key, []).append((until, before.get(key)))

    def forecasts_are_served(
        self, lines: list[str], days_ago: int, error: float, request: str, copies: int = 1
    ) -> None:
        """Log forecasts from the newest row on, in one request; `copies` times over, as a copied file would have it."""
        served_at = pd.Timestamp.now(tz="UTC") - pd.Timedelta(days=days_ago)
        origin, steps = self.end() - 2 * HOUR, np.arange(1, HORIZON + 1)
        moments = [origin + int(step) * HOUR for step in steps]
        times = np.array([moment.tz_localize(None) for moment in moments], dtype="datetime64[ns]")
        values = np.array([[10.0 + error + number + step / 10 for step in steps] for number in range(len(lines))])
        answer = ServedPredictions(
            served_at=served_at.to_pydatetime(),
            request_id=request,
            version=1,
            pair_id="pair",
            entity_ids=lines,
            origins=np.full(len(lines), origin.tz_localize(None).to_datetime64()).astype("datetime64[ns]"),
            targets=("load",),
            steps=steps,
            timestamps=np.tile(times, (len(lines), 1)),
            values=values[:, :, None],
            lower=values[:, :, None] - 1.0,
            upper=values[:, :, None] + 2.0,
            coverage=COVERAGE,
            is_fallback=np.array([line == "c" for line in lines]),
        )
        log = PredictionLog(self.settings, self.config.name)
        for _ in range(copies):
            log.append(answer)
        log.close()
        self.served += [
            {
                "request": request,
                "line": line,
                "step": int(step),
                "moment": moment,
                "served_at": served_at,
                "value": value,
            }
            for line, row in zip(lines, values.tolist(), strict=True)
            for step, moment, value in zip(steps, moments, row, strict=True)
        ]

    def known(self, key: Key, moment: pd.Timestamp) -> float | None:
        """Return what the source said at a moment, as far as the table knows."""
        return next((value for until, value in self.stood.get(key, []) if until > moment), self.values.get(key))

    def expected(self) -> pd.DataFrame:
        rows = []
        for each in self.served:
            truth = self.values.get((each["line"], each["moment"]))
            naive_time = each["moment"] - -(-each["step"] // SEASON) * SEASON * HOUR
            naive = self.known((each["line"], naive_time), each["served_at"])
            rows.append({**each, "truth": truth, "baseline": naive})
        frame = pd.DataFrame(rows).astype({"truth": float, "baseline": float})
        low, high = frame["truth"] - (frame["value"] - 1.0), frame["truth"] - (frame["value"] + 2.0)
        frame["pinball"] = (np.maximum(low * 0.1, -low * 0.9) + np.maximum(high * 0.9, -high * 0.1)) / 2
        return frame.drop_duplicates(["request", "line", "step", "served_at"])

    def check(self) -> None:
        """Compare the table with all that was ever predicted."""
        keys = ["request", "line", "step"]
        expected = self.expected().sort_values([*keys, "served_at"], ignore_index=True)
        parts = [pd.read_parquet(path) for path, _ in pieces(self.settings, self.config.name)]
        names = {"request_id": "request", "entity_id": "line"}
        found = pd.concat(parts).rename(columns=names).sort_values([*keys, "served_at"], ignore_index=True)
        assert len(found) == len(expected)
        for name in (*keys, "value"):
            assert found[name].tolist() == expected[name].tolist()
        for name in ("truth", "baseline", "pinball"):
            np.testing.assert_allclose(found[name].astype(float), expected[name], rtol=1e-6, atol=1e-5, err_msg=name)
        error = expected["value"] - expected["truth"]
        np.testing.assert_allclose(found["error"].astype(float), error, rtol=1e-5, atol=1e-5)
        inside = ((error <= 1.0) & (error >= -2.0)).where(error.notna())
        assert found["is_inside"].astype("boolean").tolist() == inside.astype("boolean").tolist()


@pytest.fixture
def plant(tmp_path: Path, mlflow_database: Path) -> Plant:
    plant = Plant(meter_yard(tmp_path, mlflow_database, meter_rows({"a": 1}), baselines=BASELINES, horizon=HORIZON))
    rows = meter_rows({"a": 60, "b": 60, "c": 60}, end="2024-01-30T12:00:00Z")
    keys = zip(rows["line"], pd.to_datetime(rows["time"]), strict=True)
    plant.rows_arrive(dict(zip(keys, rows["load"].tolist(), strict=True)))
    return plant


def live(plant: Plant, chance: random.Random) -> None:
    """Let something happen: rows, corrections, a late row, requests, some of them logged twice."""
    what = chance.choice(["rows", "correction", "request", "request"])
    if what == "rows":
        # The month ends meanwhile; of some meters a row is missing and comes later, or never.
        news = [(line, plant.end() + (hour + 1) * HOUR) for line in "abc" for hour in range(chance.randint(1, 9))]
        plant.rows_arrive({key: chance.uniform(5, 15) for key in news if chance.random() < 0.9 or key[0] == "a"})
    elif what == "correction":
        recent = [(line, plant.end() - hour * HOUR) for line in "abc" for hour in range(1, 30)]
        plant.rows_arrive({key: chance.uniform(5, 15) for key in chance.sample(recent, 4)})
    else:
        lines = chance.sample(["a", "b", "c"], chance.randint(1, 3))
        request = f"r{len(plant.served)}"
        plant.forecasts_are_served(lines, chance.randint(0, 2), chance.uniform(-2, 2), request, chance.randint(1, 2))


@pytest.mark.parametrize("seed", range(2))
def test_the_table_is_what_brute_force_makes_of_the_same_history(plant: Plant, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    plant.forecasts_are_served(["a", "b"], 1, 0.0, "first")
    for _ in range(12):
        live(plant, chance)
        if chance.random() < 0.5:
            update_errors(plant.config, plant.settings)
            plant.check()
    update_errors(plant.config, plant.settings)
    plant.check()
    again = update_errors(plant.config, plant.settings)
    assert again.written == 0
    assert again.rows == len(plant.expected())
    assert again.waiting == int(plant.expected()["truth"].isna().sum())


def die_at_a_piece(config: ExperimentConfig, settings: Settings, number: int, *, after: bool) -> None:
    """Update the table and be killed at its piece of that number, before or after it has its place."""
    write, written = update_module.write_piece, 0

    def die(*arguments: Any) -> Any:
        nonlocal written
        written += 1
        if written == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        done = write(*arguments)
        if written == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    update_module.write_piece = die
    update_errors(config, settings)


def die_before(config: ExperimentConfig, settings: Settings, number: int) -> None:
    die_at_a_piece(config, settings, number, after=False)


def die_after(config: ExperimentConfig, settings: Settings, number: int) -> None:
    die_at_a_piece(config, settings, number, after=True)


def test_a_kill_between_writes_counts_nothing_twice_and_loses_nothing(plant: Plant) -> None:
    for days_ago in (0, 1, 2):
        plant.forecasts_are_served(["a", "b"], days_ago, 0.5, f"r{days_ago}")
    update_errors(plant.config, plant.settings)
    for number, die in ((1, die_before), (2, die_after), (3, die_before)):
        time = plant.end()
        plant.rows_arrive({("a", time): 11.0 + number, ("b", time - HOUR): 9.0 + number})
        with Fork(die, plant.config, plant.settings, number) as process:
            assert process.wait() == -signal.SIGKILL
        update_errors(plant.config, plant.settings)
        plant.check()


def test_a_correction_reaches_predictions_whose_log_is_gone_and_no_others_are_made_again(plant: Plant) -> None:
    plant.forecasts_are_served(["a"], 2, 0.5, "old")
    plant.rows_arrive({("a", plant.end() + 40 * HOUR): 10.0})
    plant.forecasts_are_served(["a"], 0, 0.5, "new")
    assert update_errors(plant.config, plant.settings).written == 2
    settings = Settings.from_env({**plant.yard.environ, "MLPLATFORM_PREDICTION_LOG_RETENTION_DAYS": "1"})
    assert maintain_predictions(settings, plant.config.name, dt.datetime.now(dt.UTC)).deleted_days == 1
    assert update_errors(plant.config, plant.settings).written == 0
    # The moments of the first request lie in January, those of the second in February.
    moment = plant.served[0]["moment"]
    plant.rows_arrive({("a", moment): 42.0})
    assert update_errors(plant.config, plant.settings).written == 1
    plant.check()


def test_a_log_that_is_deleted_half_way_loses_nothing_of_the_table(plant: Plant) -> None:
    for number in range(3):
        plant.forecasts_are_served(["a", "b"], 1, float(number), f"r{number}")
    plant.rows_arrive({(line, plant.end() + (hour + 1) * HOUR): 10.0 for line in "abc" for hour in range(9)})
    update_errors(plant.config, plant.settings)
    plant.check()
    first, second, _ = sorted((plant.settings.predictions_dir / plant.config.name).rglob("*.parquet"))
    first.unlink()
    second.unlink()
    assert update_errors(plant.config, plant.settings).written == 1
    plant.check()


def test_what_stood_in_for_a_forecast_is_in_the_table_and_in_no_error(plant: Plant) -> None:
    plant.forecasts_are_served(["a", "c"], 1, 0.0, "one")
    # Asked for once more, a forecast counts once, as it was answered last.
    plant.forecasts_are_served(["a"], 0, 1.0, "two")
    update_errors(plant.config, plant.settings)
    own = plant.expected()
    own = own[(own["request"] == "two") & own["truth"].notna()]
    (found,) = summarise_errors(plant.config, plant.settings, ["version"]).to_dict("records")
    error = own["value"] - own["truth"]
    assert (found["version"], found["count"]) == (1, len(own))
    assert found["error"] == pytest.approx(error.abs().mean(), rel=1e-5)
    assert found["bias"] == pytest.approx(error.mean(), rel=1e-5)
    assert found["covered"] == pytest.approx(((error <= 1) & (error >= -2)).mean())
    assert found["coverage"] == COVERAGE
    assert found["naive_error"] == pytest.approx((own["baseline"] - own["truth"]).abs().mean(), rel=1e-5)
    by_step = summarise_errors(plant.config, plant.settings, ["step"])
    assert by_step["step"].tolist() == own["step"].tolist()
    start = plant.end() - HOUR
    count, _ = recent_error(plant.config, plant.settings, 1, since=start, until=plant.end())
    assert count == 1


def test_an_entity_s_newest_forecasts_stand_beside_what_came_true(plant: Plant) -> None:
    assert newest_moment(plant.config, plant.settings) is None
    plant.forecasts_are_served(["a", "b"], 1, 0.0, "one")
    plant.rows_arrive({("a", plant.end() + HOUR): 12.0})
    plant.forecasts_are_served(["a"], 0, 1.0, "two")
    update_errors(plant.config, plant.settings)
    since = plant.end() - 30 * HOUR
    found = followed_forecasts(plant.config, plant.settings, 1, "a", since)
    own = plant.expected()
    own = own[(own["line"] == "a") & own["truth"].notna()].drop_duplicates("moment", keep="last").sort_values("moment")
    assert len(own) == 3
    assert found["target"].unique().tolist() == ["load"]
    assert found["moment"].tolist() == own["moment"].tolist()
    for name, expected in {"value": own["value"], "lower": own["value"] - 1, "truth": own["truth"]}.items():
        np.testing.assert_allclose(found[name].astype(float), expected, rtol=1e-6, err_msg=name)
    assert followed_forecasts(plant.config, plant.settings, 2, "a", since).empty
    newest = newest_moment(plant.config, plant.settings)
    assert newest is not None
    assert newest >= own["moment"].max()


def test_the_server_s_page_shows_what_came_true(plant: Plant) -> None:
    config = plant.config
    contract = Contract(
        experiment=config.name,
        task="forecast",
        dataset=config.dataset.name,
        columns=config.features.columns,
        targets=config.targets,
        lookback=config.lookback,
        context=0,
        horizon=HORIZON,
        step_seconds=3600,
    )
    assert read_live(contract, plant.settings) is None
    assert read_followed(contract, 1, "a", 48, plant.settings) is None
    plant.forecasts_are_served(["a", "b"], 1, 0.0, "one")
    update_errors(config, plant.settings)
    own = plant.expected()
    own = own[own["truth"].notna()]
    live = read_live(contract, plant.settings)
    assert live is not None
    (version,) = live["versions"]
    assert (version["version"], version["count"], version["coverage"]) == (1, len(own), COVERAGE)
    assert version["error"] == pytest.approx((own["value"] - own["truth"]).abs().mean(), rel=1e-5)
    followed = read_followed(contract, 1, "a", 48, plant.settings)
    assert followed is not None
    shown, of_line = followed["targets"]["load"], own[own["line"] == "a"]
    assert shown["timestamps"] == [moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in of_line["moment"]]
    assert shown["truth"] == pytest.approx(of_line["truth"].tolist())
    assert read_followed(contract, 1, "nothing", 48, plant.settings) is None
    to_json({"live": live, "followed": followed})


def test_a_piece_that_is_damaged_behind_its_footer_is_put_aside_and_made_again(
    plant: Plant, caplog: pytest.LogCaptureFixture
) -> None:
    for days_ago, line in enumerate("ab"):
        plant.forecasts_are_served([line], days_ago, 0.5, f"r{days_ago}")
    plant.rows_arrive({(line, plant.end() + hour * HOUR): 10.0 for hour in range(1, HORIZON) for line in "ab"})
    update_errors(plant.config, plant.settings)
    whole = summarise_errors(plant.config, plant.settings, ("version",))
    path, _ = next(pieces(plant.settings, plant.config.name))
    damaged = bytearray(path.read_bytes())
    damaged[4:600] = b"\xff" * 596
    path.write_bytes(damaged)
    found = summarise_errors(plant.config, plant.settings, ("version",))
    assert 0 < found["count"].sum() < whole["count"].sum()
    assert f"{path} is damaged" in caplog.text
    assert update_errors(plant.config, plant.settings).written == 1
    plant.check()
    pd.testing.assert_frame_equal(summarise_errors(plant.config, plant.settings, ("version",)), whole)


def test_footers_and_notes_that_cannot_be_read_are_made_again(plant: Plant) -> None:
    plant.forecasts_are_served(["a"], 0, 0.5, "r")
    update_errors(plant.config, plant.settings)
    path, _ = next(pieces(plant.settings, plant.config.name))
    for said in (b"", b"[]", b"{", b'{"format": 1}'):
        table = pq.read_table(path)
        pq.write_table(table.replace_schema_metadata({b"made_from": said}), path)
        assert update_errors(plant.config, plant.settings).written == 1
    plant.check()
