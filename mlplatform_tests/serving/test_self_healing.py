"""A server starts without a registry, notices that the alias moved, and goes on when what was away is back."""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from mlplatform.config import load_experiment
from mlplatform.features.feast import apply_dataset
from mlplatform.registry.pairs import KeptPairs, PairInfo, PairIntegrityError, PairStore
from mlplatform.settings import ServerLimits, Settings, sqlite_file
from mlplatform_tests.alerts.receivers import hook
from mlplatform_tests.serving.conftest import Platform
from mlplatform_tests.serving.servers import in_thread
from serving.api import build_app
from serving.bundle import BundleHolder, BundleLoader
from serving.errors import ServingError
from serving.local import LocalBackend


@pytest.fixture
def settings(platform: Platform, tmp_path: Path) -> Settings:
    """Settings of a server with a copy of the registry's database, for the test to take away."""
    database = sqlite_file(platform.settings.mlflow_tracking_uri)
    assert database is not None
    shutil.copy(database, tmp_path / "registry.db")
    address = f"sqlite:///{tmp_path / 'registry.db'}"
    # The pairs that are kept lie below the home of the server, which is the test's own.
    home = tmp_path / "home"
    shutil.copytree(platform.settings.feast_dir, home / "feast")
    return replace(platform.serving("tiny_forecast"), mlflow_tracking_uri=address, home=home)


@contextmanager
def serving(settings: Settings, poll_s: float = 0.0) -> Iterator[httpx.Client]:
    settings = replace(settings, limits=ServerLimits(poll_s=poll_s))
    with in_thread(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
        yield client


def eventually(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def registry_of(settings: Settings) -> Path:
    database = sqlite_file(settings.mlflow_tracking_uri)
    assert database is not None
    return database


def test_a_server_starts_from_the_pair_it_kept_while_the_registry_is_away(
    settings: Settings, platform: Platform
) -> None:
    body = {"rows": platform.rows()}
    with serving(settings) as client:
        before = client.post("/predict", json=body).json()
    database = registry_of(settings)
    database.rename(database.with_suffix(".away"))
    with serving(settings, poll_s=0.2) as client:
        after = client.post("/predict", json=body).json()
        assert after["pair_id"] == before["pair_id"]
        assert after["forecasts"][0]["values"] == before["forecasts"][0]["values"]
        assert not database.exists()  # who looks for a registry does not make one
        database.with_suffix(".away").rename(database)
        PairStore(settings).promote("tiny_forecast", 2, who="test", why="a test")
        eventually(lambda: client.post("/predict", json=body).json()["version"] == 2)


@pytest.mark.parametrize("listens", [False, True], ids=["gone", "hangs"])
def test_a_server_starts_in_seconds_while_the_tracking_server_is_away(
    settings: Settings, platform: Platform, listens: bool
) -> None:
    with serving(settings) as client:
        before = client.post("/predict", json={"rows": platform.rows()}).json()
    with socket.socket() as held:
        # A port that nobody else gets; of one that listens, the system takes connections that nobody answers.
        held.bind(("127.0.0.1", 0))
        if listens:
            held.listen()
        away = replace(settings, mlflow_tracking_uri=f"http://127.0.0.1:{held.getsockname()[1]}")
        began = time.monotonic()
        with serving(away) as client:
            assert time.monotonic() - began < 10
            after = client.post("/predict", json={"rows": platform.rows()}).json()
            assert after["pair_id"] == before["pair_id"]
            assert after["forecasts"][0]["values"] == before["forecasts"][0]["values"]


def test_without_registry_and_kept_pair_the_server_waits_for_the_registry(
    settings: Settings, platform: Platform
) -> None:
    database = registry_of(settings)
    database.rename(database.with_suffix(".away"))
    with serving(settings) as client:
        assert client.get("/health/live").status_code == 200
        answer = client.post("/predict", json={"rows": platform.rows()})
        assert answer.status_code == 503
        assert "there is no model registry at" in answer.json()["error"]["message"]
        database.with_suffix(".away").rename(database)
        eventually(lambda: client.post("/predict", json={"rows": platform.rows()}).status_code == 200)


def test_a_kept_pair_that_was_changed_is_not_served(settings: Settings) -> None:
    pair = PairStore(settings).resolve("tiny_forecast")
    BundleLoader(settings).load(pair)
    kept = KeptPairs(settings.served_pairs_dir)
    assert kept.last("tiny_forecast") == pair
    assert kept.last("tiny_untrained") is None
    file = next(path for path in (settings.served_pairs_dir / "tiny_forecast").rglob("*.ubj"))
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(PairIntegrityError, match="were changed after registration"):
        kept.load(pair)
    database = registry_of(settings)
    database.rename(database.with_suffix(".away"))
    holder = BundleHolder(BundleLoader(settings))
    with pytest.raises(ServingError, match="no pair could be loaded: PairIntegrityError"):
        asyncio.run(holder.reload())


def test_artifacts_that_are_away_are_read_from_the_kept_pair(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = PairStore(settings).resolve("tiny_forecast")
    BundleLoader(settings).load(pair)
    other = PairStore(settings).resolve("tiny_forecast", "2")

    def away(*_: object) -> Path:
        raise FileNotFoundError("the artifact store is away")

    monkeypatch.setattr(PairStore, "_copy_from_registry", away)
    assert BundleLoader(settings).load(pair).pair == pair
    with pytest.raises(PairIntegrityError, match="cannot be read: the artifact store is away"):
        BundleLoader(settings).load(other)


def test_two_pairs_are_kept_and_the_last_one_served_is_the_last(settings: Settings) -> None:
    store, kept = PairStore(settings), KeptPairs(settings.served_pairs_dir)
    first, second = store.resolve("tiny_forecast", "1"), store.resolve("tiny_forecast", "2")
    for pair in (first, second, first):
        kept.keep(pair, store.fetch)
        assert kept.last("tiny_forecast") == pair
    kept.keep(replace(second, pair_id="another"), store.fetch)
    assert sorted(path.name for path in (settings.served_pairs_dir / "tiny_forecast").iterdir()) == sorted(
        (first.pair_id, "another")
    )


def test_a_moved_alias_is_found_by_polling_and_a_pair_that_cannot_be_loaded_leaves_the_old_one(
    settings: Settings, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, store = {"rows": platform.rows()}, PairStore(settings)
    with serving(settings, poll_s=0.2) as client:
        assert client.post("/predict", json=body).json()["version"] == 1
        store.promote("tiny_forecast", 2, who="test", why="a test")
        eventually(lambda: client.post("/predict", json=body).json()["version"] == 2)

        def broken(*_: object) -> PairInfo:
            raise PairIntegrityError("the registry is broken")

        with monkeypatch.context() as patch:
            patch.setattr(PairStore, "resolve", broken)
            failed = 'mlplatform_alias_polls_total{experiment="tiny_forecast",outcome="failed"}'
            eventually(lambda: failed in client.get("/metrics").text)
            assert client.post("/predict", json=body).json()["version"] == 2
        store.rollback("tiny_forecast", who="test", why="a test")
        eventually(lambda: client.post("/predict", json=body).json()["version"] == 1)


def test_aliases_are_told_as_they_are_and_as_they_were_while_the_registry_is_away(settings: Settings) -> None:
    database = registry_of(settings)

    def told(client: httpx.Client) -> dict[str, int] | None:
        aliases: dict[str, int] | None = client.get("/models").json()["models"][0]["aliases"]
        return aliases

    before = PairStore(settings).alias_versions("tiny_forecast")
    assert before["production"] == 1
    with serving(settings) as client:
        eventually(lambda: told(client) == before)
        # What anyone points at a version is told, without a reload.
        PairStore(settings).set_alias("tiny_forecast", "shown-to-people", 1, who="test", why="a test")
        after = {**before, "shown-to-people": 1}
        eventually(lambda: told(client) == after)
        database.rename(database.with_suffix(".away"))
        assert told(client) == after
    with serving(settings) as client:
        assert told(client) is None
        assert not database.exists()


def test_a_rollback_needs_nothing_loaded(settings: Settings) -> None:
    store, loads = PairStore(settings), []

    class CountingLoader(BundleLoader):
        def load(self, pair: PairInfo):  # type: ignore[no-untyped-def]
            loads.append(pair.version)
            return super().load(pair)

    async def scenario() -> None:
        holder = BundleHolder(CountingLoader(settings))
        for version in (1, 2, 1, 2):
            store.promote("tiny_forecast", version, who="test", why="a test")
            await holder.reload()
            assert holder.require().pair.version == version

    asyncio.run(scenario())
    assert loads == [1, 2]


@pytest.mark.parametrize("is_database", [False, True])
def test_features_are_read_while_the_feast_registry_is_away(
    settings: Settings, platform: Platform, is_database: bool
) -> None:
    registry = settings.feast_dir / "registry.db"
    if is_database:
        registry = settings.home / "feast.sqlite"
        settings = replace(settings, feast_registry=f"sqlite:///{registry}")
        shutil.copytree(platform.settings.features_dir, settings.features_dir)
        apply_dataset(load_experiment("tiny_forecast", settings=settings).dataset, settings)
    body = {"entities": [1, 2]}
    with serving(settings) as client:
        before = client.post("/predict/feast/batch", json=body).json()
        eventually(settings.served_feast_registry.exists)
    away = registry.with_suffix(".away")
    registry.rename(away)
    with serving(settings, poll_s=0.2) as client:
        assert client.get("/health/ready").status_code == 200
        answer = client.post("/predict/feast/batch", json=body)
        assert answer.status_code == 200, answer.text
        assert [each["values"] for each in answer.json()["forecasts"]] == [
            each["values"] for each in before["forecasts"]
        ]
        assert not registry.exists()  # who looks for a registry does not make one
        away.rename(registry)
        assert client.post("/predict/feast/batch", json=body).status_code == 200
        registry.rename(away)  # and away again, while it is served
        assert client.post("/predict/feast/batch", json=body).status_code == 200
        away.rename(registry)


def test_people_are_told_once_that_a_server_cannot_load_its_pair(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry_of(settings).rename(registry_of(settings).with_suffix(".away"))
    with hook() as receiver:
        monkeypatch.setenv("MLPLATFORM_ALERT_URLS", receiver.url)
        with serving(settings) as client:
            eventually(lambda: len(receiver.received) > 0)
            assert client.get("/health/ready").status_code == 503
        (told,) = receiver.received
    assert told["title"] == "tiny_forecast: a server cannot load the production pair"
    assert "Nothing is served" in told["message"]
