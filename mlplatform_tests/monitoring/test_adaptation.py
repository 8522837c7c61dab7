"""Intervals follow what came true: coverage comes back after a change, alike in batch, server and pyfunc, by pair."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from mlplatform.config import AdaptationConfig
from mlplatform.forecasts import make_forecasts, read_forecasts
from mlplatform.monitoring.adaptation import adapt, update_scale
from mlplatform.monitoring.forecast_errors import update_errors
from mlplatform.monitoring.prediction_log import PredictionLog, ServedPredictions
from mlplatform.registry import IntervalScale, calibration_digest, read_scale, write_scale
from mlplatform.registry.batch import answer_batch
from mlplatform.testing.meters import END, meter_rows, meter_yard
from mlplatform.testing.yard import EXPERIMENT, TRAIN, Yard
from mlplatform_tests.serving.servers import wait_until_loaded
from serving.api import build_app
from serving.local import LocalBackend

COVERAGE, HORIZON = 0.8, 6


def scores_of(sigma: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return scores of normal errors whose intervals are right for a standard deviation of 1."""
    errors = np.random.default_rng(seed).normal(0.0, sigma)
    return np.abs(errors / 1.2816)[:, None, None]


def test_coverage_comes_back_after_volatility_doubles_and_stays_where_nothing_changes() -> None:
    sigma = np.r_[np.ones(1000), np.full(1000, 2.0)]
    scores = scores_of(sigma)
    adapted = adapt(scores, COVERAGE, step_size=0.02, window=168)
    inside, unscaled = scores[:, 0, 0] <= adapted.path[:, 0], scores[:, 0, 0] <= 1.0
    assert inside[200:1000].mean() == pytest.approx(COVERAGE, abs=0.03)
    assert unscaled[1000:].mean() < 0.55
    assert inside[1000 + 168 :].mean() == pytest.approx(COVERAGE, abs=0.03)
    assert adapted.scales[0] == pytest.approx(2.0, rel=0.2)


@pytest.mark.parametrize("step_size", [0.005, 0.05])
def test_in_the_long_run_the_share_of_misses_is_what_is_aimed_at_whatever_happens(step_size: float) -> None:
    # The bound of the paper, for any sequence: |mean miss - alpha| <= (max(alpha, 1 - alpha) + gamma) / (gamma T).
    generator = np.random.default_rng(1)
    sigma = np.exp(np.cumsum(generator.normal(0, 0.02, 4000)))
    sigma = np.clip(sigma, 0.2, 5.0)
    scores = scores_of(sigma)
    adapted = adapt(scores, COVERAGE, step_size, window=100)
    missed = (scores[:, 0, 0] > adapted.path[:, 0]).mean()
    assert abs(missed - (1 - COVERAGE)) <= (COVERAGE + step_size) / (step_size * len(sigma)) + 0.01


def test_few_scores_change_nothing_and_moments_without_truth_are_no_misses() -> None:
    scores = scores_of(np.full(29, 9.0))
    assert adapt(scores, COVERAGE, 0.05, 168).scales.tolist() == [1.0]
    unknown = np.full((300, 1, 1), np.nan)
    assert adapt(unknown, COVERAGE, 0.05, 168).levels.tolist() == pytest.approx([1 - COVERAGE])
    wild = adapt(scores_of(np.full(500, 1e9)), COVERAGE, 0.05, 168)
    assert wild.scales.tolist() == [10.0]


def test_it_is_moments_that_count_however_many_scores_each_of_them_has() -> None:
    scores = scores_of(np.r_[np.ones(100), np.full(100, 2.0)])
    for moments in (29, 30, 200):
        one, many = (adapt(each[:moments], COVERAGE, 0.02, 168) for each in (scores, np.repeat(scores, 11, axis=2)))
        np.testing.assert_allclose(many.path, one.path)
        assert many.scales.tolist() == one.scales.tolist()


@pytest.fixture(scope="module")
def meters(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Yard:
    yard = meter_yard(tmp_path_factory.mktemp("meters"), mlflow_database, meter_rows({"a": 480, "b": 480}))
    assert yard.run(TRAIN).success
    return yard


def test_server_batch_and_pyfunc_apply_the_scale_of_their_pair_alike(
    meters: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, pair = meters.settings, meters.pairs.resolve(EXPERIMENT)
    monkeypatch.setenv("MLPLATFORM_HOME", str(settings.home))
    forecaster = meters.pairs.load(pair)
    scales = tuple(0.5 + 0.5 * step for step in range(HORIZON))
    rows = meter_rows({"a": 480, "b": 480}).rename(columns={"line": "entity_id", "time": "event_timestamp"})
    rows["event_timestamp"] = pd.to_datetime(rows["event_timestamp"], utc=True)

    def batch() -> pd.DataFrame:
        report = make_forecasts(meters.config, settings)
        frame = read_forecasts(settings, EXPERIMENT, report.origin)
        return frame.sort_values(["entity_id", "step"], ignore_index=True)

    live = replace(settings, experiment=EXPERIMENT, limits=replace(settings.limits, poll_s=0.1))
    with TestClient(build_app({EXPERIMENT: LocalBackend(live)}, live)) as client:
        wait_until_loaded(client)

        def served() -> list[dict[str, float]]:
            answer = client.post("/predict/feast/batch", json={"entities": ["a", "b"]}).json()
            return [each["interval"] for each in answer["forecasts"]]

        def comes_to(lower: np.ndarray) -> bool:
            """Wait for the server, which looks by itself ten times a second; JSON has the numbers as 32 bits."""
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                found = np.array([each["lower"]["load"] for each in served()], np.float32)
                if (found.ravel() == lower).all():
                    return True
                time.sleep(0.05)
            return False

        plain = batch()
        scale = IntervalScale(
            pair.pair_id, pair.version, calibration_digest(forecaster.model) or "", (scales,), (), "", ()
        )
        write_scale(scale, settings, EXPERIMENT)
        wide, pyfunc = batch(), answer_batch(forecaster, rows)
        factors = np.tile(scales, 2)
        assert wide["value"].tolist() == plain["value"].tolist()
        for side in ("lower", "upper"):
            expected = plain["value"] + factors * (plain[side] - plain["value"])
            np.testing.assert_allclose(wide[side], expected, rtol=1e-5)
            assert pyfunc[f"load_{side}"].tolist() == wide[side].tolist()
        assert comes_to(wide["lower"].to_numpy())
        # Of another pair it is nobody's business.
        write_scale(replace(scale, pair_id="another", calibration="another"), settings, EXPERIMENT)
        assert batch()["lower"].tolist() == plain["lower"].tolist()
        write_scale(None, settings, EXPERIMENT)
        assert comes_to(plain["lower"].to_numpy())


def test_what_came_true_of_a_pair_moves_its_scale_and_nothing_else_does(meters: Yard) -> None:
    settings, pair = meters.settings, meters.pairs.resolve(EXPERIMENT)
    model = meters.pairs.load(pair).model
    config = meters.config.model_copy(update={"adaptation": AdaptationConfig(step_size=0.02, window=100)})
    end = pd.Timestamp(END).tz_localize(None)
    loads = meter_rows({"a": 480}).set_index("time")["load"]
    log = PredictionLog(settings, EXPERIMENT)
    for back in range(60, 5, -1):
        origin = end - pd.Timedelta(hours=back)
        times = np.array([origin + pd.Timedelta(hours=step) for step in range(1, HORIZON + 1)], "datetime64[ns]")
        truth = np.array([loads[f"{pd.Timestamp(moment):%Y-%m-%dT%H:%M:%SZ}"] for moment in times])
        # All truths lie twice as far from the point as the upper bound.
        value = (truth - 2.0)[None, :, None]
        log.append(
            ServedPredictions(
                served_at=dt.datetime.now(dt.UTC),
                request_id=f"r{back}",
                version=pair.version,
                pair_id=pair.pair_id,
                entity_ids=["a"],
                origins=np.array([origin], "datetime64[ns]"),
                targets=("load",),
                steps=np.arange(1, HORIZON + 1),
                timestamps=times[None, :],
                values=value,
                lower=value - 5.0,
                upper=value + 1.0,
                coverage=COVERAGE,
            )
        )
    log.close()
    update_errors(config, settings)
    now = pd.Timestamp.now(tz="UTC")
    scale = update_scale(config, settings, pair, model, now)
    assert scale is not None
    assert scale.scales == (pytest.approx((2.0,) * HORIZON, rel=1e-4),)
    assert read_scale(settings, EXPERIMENT) == scale
    # Looked at again, it says the same: what was served by the old bounds is not judged by the new ones.
    assert update_scale(config, settings, pair, model, now + pd.Timedelta(hours=1)) == scale
    other = update_scale(config, settings, replace(pair, pair_id="another"), model, now)
    assert other is not None
    assert other.scales == ((1.0,) * HORIZON,)
    off = config.model_copy(update={"adaptation": AdaptationConfig()})
    assert update_scale(off, settings, pair, model, now) is None
    assert read_scale(settings, EXPERIMENT) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:0],
        lambda text: text[:100],
        lambda text: f"[{text}]",
        lambda text: text.replace("0.5", '"wide"'),
        lambda text: text.replace("0.5", "-0.5"),
        lambda text: text.replace("+00:00", ""),
    ],
)
def test_a_damaged_scale_is_left_out_and_learnt_again(
    meters: Yard, caplog: pytest.LogCaptureFixture, damage: Callable[[str], str]
) -> None:
    settings, pair = meters.settings, meters.pairs.resolve(EXPERIMENT)
    model = meters.pairs.load(pair).model
    scales = ((0.5,) * HORIZON,)
    scale = IntervalScale(pair.pair_id, 1, "digest", scales, scales, "", (("2026-01-01T00:00:00+00:00", scales),))
    write_scale(scale, settings, EXPERIMENT)
    path = settings.home / "monitoring" / EXPERIMENT / "interval_scale.json"
    text = path.read_text()
    path.write_text(json.dumps(json.loads(text) | {"newer": 1}))
    assert read_scale(settings, EXPERIMENT) == scale
    path.write_text(damage(text))
    assert read_scale(settings, EXPERIMENT) is None
    assert str(path) in caplog.text
    assert make_forecasts(meters.config, settings).rows
    config = meters.config.model_copy(update={"adaptation": AdaptationConfig(step_size=0.02, window=100)})
    learnt = update_scale(config, settings, pair, model, pd.Timestamp.now(tz="UTC"))
    assert read_scale(settings, EXPERIMENT) == learnt
    write_scale(None, settings, EXPERIMENT)
