"""Champion and challenger: who answers whom, on every route, and what becomes of a challenger that fails."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from mlplatform.monitoring.prediction_log import read_predictions
from mlplatform.registry.pairs import PairInfo, PairStore
from mlplatform.settings import ServerLimits, Settings
from mlplatform_tests.serving.conftest import TOKEN, UNITS, Platform
from mlplatform_tests.serving.servers import in_thread
from serving.api import build_app
from serving.assignment import entity_key, place_of, row_key
from serving.backend import CHALLENGER
from serving.local import LocalBackend
from serving.rows import panel_from_rows
from serving.rules import RowRules

NAME = "tiny_forecast"
ADMIN = {"authorization": f"Bearer {TOKEN}"}
Pairs = tuple[PairInfo, PairInfo]
# Unit 2 has a gap.
NULLS = RowRules(nullable=frozenset({"load"}))


def settings_with(platform: Platform, folder: Path, challenger: dict[str, Any], name: str = NAME) -> Settings:
    """Return settings under which an experiment has a challenger; its log lies in `folder`."""
    write_challenger(platform, folder, challenger, name)
    return platform.serving(
        name,
        conf_dir=folder,
        prediction_log_url=None,
        limits=ServerLimits(poll_s=0),
    )


def write_challenger(platform: Platform, folder: Path, challenger: dict[str, Any] | None, name: str = NAME) -> None:
    assert platform.settings.conf_dir is not None
    for path in platform.settings.conf_dir.rglob("*.yaml"):
        copy = folder / path.relative_to(platform.settings.conf_dir)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    path = folder / "experiment" / f"{name}.yaml"
    head, _, text = path.read_text().partition("\n")
    path.write_text(f"{head}\n{json.dumps({**json.loads(text), 'serving': {'challenger': challenger}})}")


@contextmanager
def serving(settings: Settings) -> Iterator[tuple[httpx.Client, LocalBackend]]:
    """Serve one experiment, its challenger loaded."""
    backend = LocalBackend(settings)
    app: FastAPI = build_app({settings.experiment: backend}, settings)
    with in_thread(app) as client:
        assert client.post("/admin/reload", headers=ADMIN).status_code == 200
        yield client, backend


def rows_of(platform: Platform, unit: int) -> list[dict[str, Any]]:
    """Return the rows of a unit as JSON can hold them."""
    return [
        {name: None if value != value else value for name, value in row.items()} for row in platform.rows(unit=unit)
    ]


def in_share(share: float, name: str = NAME) -> set[int]:
    return {unit for unit in UNITS if place_of(name, entity_key(unit)) < share}


def split_share() -> float:
    """Return a share that has some of the units, and not all."""
    places = sorted(place_of(NAME, entity_key(unit)) for unit in UNITS)
    return (places[0] + places[1]) / 2


def metric(client: httpx.Client, start: str) -> float:
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(start)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_places_are_pinned_and_spread_evenly() -> None:
    """Another hash would move entities between arms in the middle of a comparison."""
    assert round(place_of("fleet_xgboost", entity_key(7)), 6) == 0.030834
    assert entity_key(7) == entity_key("7")
    places = np.array([place_of("e", entity_key(number)) for number in range(4000)])
    assert abs((places < 0.1).mean() - 0.1) < 0.02
    columns = ("width", "colour")
    assert row_key({"width": 3, "colour": "red"}, columns) == row_key({"colour": "red", "width": 3.0, "id": 1}, columns)
    assert row_key({"width": 0.1}, columns) == row_key({"width": float(np.float32(0.1))}, columns)
    assert row_key({"width": None}, columns) != row_key({"width": 0.0}, columns)


def test_every_route_answers_an_entity_from_the_same_arm_and_says_which(
    platform: Platform, tmp_path: Path, fresh_pairs: Pairs
) -> None:
    share = split_share()
    (chosen,) = in_share(share)
    settings = settings_with(platform, tmp_path, {"share": share})
    store = PairStore(platform.settings)
    models = {pair.version: store.load(pair) for pair in fresh_pairs}
    assert len(models) == 2
    with serving(settings) as (client, _):
        listed = client.get(f"/models/{NAME}").json()["challenger"]
        assert (listed["alias"], listed["version"], listed["reason"]) == ("staging", 2, None)
        rows = [row for unit in UNITS for row in rows_of(platform, unit)]
        alone = {unit: client.post("/predict", json={"rows": rows_of(platform, unit)}).json() for unit in UNITS}
        whole = client.post("/predict", json={"rows": rows}).json()
        stored = client.post("/predict/feast/batch", json={"entities": list(UNITS)}).json()
        assert (whole["arm"], whole["version"]) == ("mixed", 1)
        for answer in (whole, stored):
            assert [item["entity"] for item in answer["forecasts"]] == list(UNITS)
            for item in answer["forecasts"]:
                expected = ("staging", 2) if item["entity"] == chosen else ("production", 1)
                assert (item["arm"], item["version"]) == expected
                assert item["values"] == alone[item["entity"]]["forecasts"][0]["values"]
        assert (alone[chosen]["version"], alone[chosen]["arm"]) == (2, "staging")
        named = client.post("/predict", json={"rows": rows, "alias": "production"}).json()
        assert {(item["arm"], item["version"]) for item in named["forecasts"]} == {("production", 1)}
        v2 = client.post(
            f"/v2/models/{NAME}/infer",
            json={"inputs": [{"name": "entity_id", "shape": [3], "datatype": "INT64", "data": list(UNITS)}]},
        ).json()
        expected_versions = [2 if unit == chosen else 1 for unit in UNITS]
        assert json.loads(v2["parameters"]["versions"]) == expected_versions
        mlflow = client.post("/invocations", json={"dataframe_records": rows}).json()
        assert (mlflow["arm"], mlflow["versions"]) == ("mixed", expected_versions)
        assert metric(client, f'mlplatform_predictions_total{{arm="staging",experiment="{NAME}",version="2"}}') > 0
        assert metric(client, f'mlplatform_served_pair_info{{arm="staging",experiment="{NAME}"') == 1


def test_rows_of_a_table_are_assigned_by_their_values_and_keep_their_numbers(
    platform: Platform, tmp_path: Path
) -> None:
    name = "tiny_regression"
    rows = [{"width": float(number), "colour": "red"} for number in range(12)]
    other = register_again(platform, name)
    settings = settings_with(platform, tmp_path, {"share": 0.5}, name)
    chosen = [place_of(name, row_key(row, ("width", "colour"))) < 0.5 for row in rows]
    assert 0 < sum(chosen) < len(rows)
    with serving(settings) as (client, _):
        answer = client.post("/predict", json={"rows": rows}).json()
        assert [item["entity"] for item in answer["predictions"]] == list(range(12))
        assert [item["version"] == other.version for item in answer["predictions"]] == chosen
        reversed_answer = client.post("/predict", json={"rows": rows[::-1]}).json()
        values = [item["value"] for item in answer["predictions"]]
        assert [item["value"] for item in reversed_answer["predictions"]][::-1] == values


@pytest.mark.parametrize("mode", ["split", "shadow"])
def test_the_log_says_which_row_of_the_request_each_answer_is_of(platform: Platform, tmp_path: Path, mode: str) -> None:
    # Labels name rows by their places in the request; of what an arm answered only some are its own.
    name = "tiny_regression"
    rows = [{"width": float(number), "colour": "red"} for number in range(12)]
    other = register_again(platform, name)
    chosen = [place_of(name, row_key(row, ("width", "colour"))) < 0.5 for row in rows]
    settings = replace(
        settings_with(platform, tmp_path, {"share": 0.5, "mode": mode}, name),
        home=tmp_path / "home",
        mlflow_tracking_uri=platform.settings.mlflow_tracking_uri,
    )
    with serving(settings) as (client, _):
        answered = client.post("/predict", json={"rows": rows}).json()["predictions"]
        if mode == "shadow":
            wait_for(lambda: metric(client, "mlplatform_challenger_shadow_requests_total") >= 1)
    log = read_predictions(settings, name).sort_values(["version", "request_row"])
    tried, usual = log[log["version"] == other.version], log[log["version"] != other.version]
    assert tried["request_row"].tolist() == [place for place, is_chosen in enumerate(chosen) if is_chosen]
    of_production = [place for place, is_chosen in enumerate(chosen) if mode == "shadow" or not is_chosen]
    assert usual["request_row"].tolist() == of_production
    told = log if mode == "split" else usual
    assert [answered[place]["value"] for place in told["request_row"]] == pytest.approx(told["value"].tolist())


def register_again(platform: Platform, name: str) -> PairInfo:
    from mlplatform_tests.serving.conftest import register

    return register(name, platform.settings, rounds=3)


@pytest.mark.usefixtures("fresh_pairs")
def test_a_shadow_answers_nobody_and_is_logged_beside_production(platform: Platform, tmp_path: Path) -> None:
    settings = replace(settings_with(platform, tmp_path, {"share": 1.0, "mode": "shadow"}), home=tmp_path / "home")
    settings = replace(settings, mlflow_tracking_uri=platform.settings.mlflow_tracking_uri)
    with serving(settings) as (client, _):
        answer = client.post("/predict", json={"rows": platform.rows()})
        assert (answer.json()["version"], answer.json()["arm"]) == (1, "production")
        wait_for(lambda: metric(client, "mlplatform_challenger_shadow_requests_total") >= 1)
        assert metric(client, f'mlplatform_predictions_total{{arm="staging",experiment="{NAME}"') == 0
    log = read_predictions(settings, NAME)
    assert set(zip(log["arm"], log["version"], strict=True)) == {("production", 1), ("staging", 2)}
    assert log["request_id"].nunique() == 1
    assert log.groupby("arm").size().tolist() == [3, 3]


def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.usefixtures("fresh_pairs")
@pytest.mark.parametrize("fault", ["raises", "hangs", "answers NaN"])
def test_production_answers_for_a_challenger_that_fails(platform: Platform, tmp_path: Path, fault: str) -> None:
    settings = settings_with(platform, tmp_path, {"share": 1.0, "deadline_s": 0.3})
    with serving(settings) as (client, backend):
        body = {"rows": platform.rows()}
        assert client.post("/predict", json=body).json()["version"] == 2
        backend._challenger.changed(lambda bundle: replace(bundle, forecaster=broken(bundle.forecaster, fault)))
        answers = [client.post("/predict", json=body) for _ in range(8)]
        assert [answer.status_code for answer in answers] == [200] * 8
        assert {(answer.json()["version"], answer.json()["arm"]) for answer in answers} == {(1, "production")}
        reason = "timeout" if fault == "hangs" else "failed"
        counted = f'mlplatform_challenger_fallbacks_total{{experiment="{NAME}",reason='
        assert metric(client, f'{counted}"{reason}"}}') == 5
        # After five failures it is left alone, so that those who ask do not wait for it.
        assert metric(client, f'{counted}"paused"}}') == 3


def broken(forecaster: Any, fault: str) -> Any:
    class Broken(type(forecaster)):  # type: ignore[misc]
        def infer_answers(self, samples: Any) -> Any:
            if fault == "raises":
                raise RuntimeError("broken")
            if fault == "hangs":
                time.sleep(5)
            answers = super().infer_answers(samples)
            return answers._replace(point=np.full_like(answers.point, np.nan))

    return Broken(**vars(forecaster))


def test_a_challenger_that_cannot_be_loaded_leaves_production_alone_and_says_why(
    platform: Platform, tmp_path: Path, fresh_pairs: Pairs
) -> None:
    settings = settings_with(platform, tmp_path, {"share": 1.0})
    store = PairStore(platform.settings)
    (state, *_) = [
        path
        for path in platform.settings.home.rglob("boosters.ubj")
        if fresh_pairs[1].files["model"]["artifacts/model/state/boosters.ubj"] == sha256(path)
        and "serving" not in path.parts
    ]
    assert store.resolve(NAME, "staging").version == fresh_pairs[1].version
    before = state.read_bytes()
    state.write_bytes(before[:-1] + b"!")
    try:
        with serving(settings) as (client, _):
            assert client.post("/predict", json={"rows": platform.rows()}).json()["version"] == 1
            told = client.get(f"/models/{NAME}").json()["challenger"]
            assert told["version"] is None
            assert "cannot be loaded" in told["reason"]
            failed = f'mlplatform_challenger_looks_total{{experiment="{NAME}",outcome="failed"}}'
            assert metric(client, failed) >= 1
    finally:
        state.write_bytes(before)


def sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_promotion_of_the_challenger_switches_it_off_and_a_changed_policy_too(
    platform: Platform, tmp_path: Path, fresh_pairs: Pairs
) -> None:
    settings = settings_with(platform, tmp_path, {"share": 1.0})
    store, body = PairStore(platform.settings), {"rows": platform.rows()}
    with serving(settings) as (client, _):
        assert client.post("/predict", json=body).json()["arm"] == "staging"
        store.promote(NAME, fresh_pairs[1].version, who="test", why="a test")
        assert client.post("/admin/reload", headers=ADMIN).json()["version"] == 2
        answer = client.post("/predict", json=body).json()
        assert (answer["version"], answer["arm"]) == (2, "production")
        assert "is the one in production" in client.get(f"/models/{NAME}").json()["challenger"]["reason"]
        store.promote(NAME, fresh_pairs[0].version, who="test", why="a test")
        client.post("/admin/reload", headers=ADMIN)
        assert client.post("/predict", json=body).json()["arm"] == "staging"
        write_challenger(platform, tmp_path, None)
        client.post("/admin/reload", headers=ADMIN)
        assert client.post("/predict", json=body).json()["arm"] == "production"
        assert client.get(f"/models/{NAME}").json()["challenger"] is None


@pytest.mark.usefixtures("fresh_pairs")
def test_a_challenger_is_not_asked_about_what_the_request_has_wrong(platform: Platform, tmp_path: Path) -> None:
    """Findings name rows of the request, not of the part that a pair was given."""
    share = split_share()
    settings = settings_with(platform, tmp_path, {"share": share})
    with serving(settings) as (client, _):
        for unit in UNITS:
            rows = [row for each in UNITS for row in rows_of(platform, each)]
            place = next(number for number, row in enumerate(rows) if row["entity_id"] == unit) + 3
            rows[place]["load"] = "much"
            response = client.post("/predict", json={"rows": rows})
            assert response.status_code == 422
            assert response.json()["error"]["details"][0]["field"] == f"rows[{place}].load"
        response = client.post("/predict/feast/batch", json={"entities": [*UNITS, 99]})
        assert [item["entity"] for item in response.json()["errors"]] == [99]
        assert {item["version"] for item in response.json()["forecasts"]} == {1, 2}


@pytest.mark.usefixtures("fresh_pairs")
def test_a_start_without_the_registry_serves_both_kept_pairs(platform: Platform, tmp_path: Path) -> None:
    settings = settings_with(platform, tmp_path, {"share": 1.0})
    with serving(settings) as (client, _):
        assert client.post("/predict", json={"rows": platform.rows()}).json()["version"] == 2
    gone = tmp_path / "gone.db"
    settings = replace(settings, mlflow_tracking_uri=f"sqlite:///{gone}")
    with in_thread(build_app({NAME: LocalBackend(settings)}, settings)) as client:
        wait_for(lambda: client.get(f"/models/{NAME}").json()["challenger"]["version"] == 2)
        answer = client.post("/predict", json={"rows": platform.rows()}).json()
        assert (answer["version"], answer["arm"]) == (2, "staging")
        assert client.get(f"/models/{NAME}").json()["version"] == 1
    assert not gone.exists()


@pytest.mark.integration
def test_aliases_that_move_under_load_lose_and_mix_no_answer(
    platform: Platform, tmp_path: Path, fresh_pairs: Pairs
) -> None:
    share = split_share()
    settings = settings_with(platform, tmp_path, {"share": share})
    settings = replace(settings, limits=ServerLimits(poll_s=0.05))
    store = PairStore(platform.settings)
    rows = [row for unit in UNITS for row in rows_of(platform, unit)]
    expected = {}
    for pair in fresh_pairs:
        forecaster = store.load(pair)
        panel = panel_from_rows(rows, pair.contract, forecaster.preprocessor.columns, NULLS)
        expected[pair.version] = forecaster.predict(panel)[:, :, 0]
    answers: list[Any] = []
    with serving(settings) as (client, _):
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                answers.append(client.post("/predict", json={"rows": rows}))

        asking = [threading.Thread(target=ask) for _ in range(2)]
        for thread in asking:
            thread.start()
        for number in range(6):
            pair = fresh_pairs[(number + 1) % 2]
            store.promote(NAME, pair.version, who="test", why="a test")
            wait_for(lambda pair=pair: client.get(f"/models/{NAME}").json()["version"] == pair.version)
            time.sleep(0.1)
        stop.set()
        for thread in asking:
            thread.join()
    assert {response.status_code for response in answers} == {200}
    seen = set()
    for response in answers:
        content = response.json()
        versions = {item["version"] for item in content["forecasts"]}
        seen.add((content["arm"], *sorted(versions)))
        for place, item in enumerate(content["forecasts"]):
            assert item["values"]["oil"] == [float(value) for value in shortest(expected[item["version"]][place])]
            is_challenged = place_of(NAME, entity_key(item["entity"])) < share
            assert item["arm"] == ("staging" if is_challenged and content["arm"] == "mixed" else "production")
    # While the challenger is looked for after a move, production answers alone.
    assert seen - {("production", 1)} == {("mixed", 1, 2), ("production", 2)}


def shortest(values: Any) -> list[float]:
    """Return float32 numbers as JSON has them."""
    return [float(str(value)) for value in np.asarray(values, np.float32)]


def test_no_challenger_is_asked_without_one_loaded(platform: Platform) -> None:
    backend = LocalBackend(platform.serving(NAME))

    async def scenario() -> None:
        with pytest.raises(Exception, match="it is being loaded"):
            await backend.predict_rows(platform.rows(), CHALLENGER)
        assert backend.challenger() is None
        await backend.close()

    asyncio.run(scenario())
