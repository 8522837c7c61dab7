"""A reload serves the new pair or keeps the old one, and says why."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mlplatform.registry.pairs import PairInfo, PairIntegrityError, PairNotFoundError, PairStore
from mlplatform.registry.pairs.evidence import PROMOTION_GATE, Evidence, tag_name
from mlplatform_tests.fixtures.keys import write_key
from mlplatform_tests.serving.conftest import Platform
from serving.bundle import Bundle, BundleHolder, BundleLoader
from serving.errors import ServingError

Pairs = tuple[PairInfo, PairInfo]


class SlowLoader(BundleLoader):
    """Counts the loads it makes; the alias may change while it resolves or loads."""

    loads = 0

    def load(self, pair: PairInfo) -> Bundle:
        self.loads += 1
        return super().load(pair)


@pytest.fixture
def holder(platform: Platform) -> BundleHolder:
    return BundleHolder(SlowLoader(platform.serving("tiny_forecast")))


def test_a_reload_swaps_to_the_pair_behind_the_alias(
    holder: BundleHolder, platform: Platform, fresh_pairs: Pairs
) -> None:
    first, second = fresh_pairs
    report = asyncio.run(holder.reload())
    assert (report.pair.version, report.previous_version, report.swapped) == (1, None, True)
    held = holder.require()
    assert held.pair.pair_id == first.pair_id

    PairStore(platform.settings).promote(second.name, second.version, who="test", why="a test")
    assert holder.require() is held
    report = asyncio.run(holder.reload())
    assert (report.pair.version, report.previous_version, report.swapped) == (2, 1, True)
    assert holder.require().pair.pair_id == second.pair_id
    assert held.pair.pair_id == first.pair_id


def test_a_reload_without_a_change_loads_nothing(holder: BundleHolder) -> None:
    asyncio.run(holder.reload())
    held = holder.current
    report = asyncio.run(holder.reload())
    assert not report.swapped
    assert holder.current is held


def test_concurrent_reloads_become_one(holder: BundleHolder, platform: Platform, fresh_pairs: Pairs) -> None:
    async def scenario() -> None:
        await holder.reload()
        PairStore(platform.settings).promote("tiny_forecast", fresh_pairs[1].version, who="test", why="a test")
        reports = await asyncio.gather(*(holder.reload() for _ in range(30)))
        assert {report.pair.version for report in reports} == {2}

    asyncio.run(scenario())
    loader = holder._loader
    assert isinstance(loader, SlowLoader)
    assert loader.loads == 2


def test_without_a_pair_a_broken_experiment_says_what_is_wrong_with_it(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "torn.yaml").write_text("# @package _global_\nname: [torn\n")
    holder = BundleHolder(BundleLoader(replace(platform.serving("torn"), conf_dir=tmp_path)))
    with pytest.raises(ServingError, match="no production pair for torn: experiment 'torn' does not compose") as caught:
        asyncio.run(holder.reload())
    assert caught.value.code == "no_production_pair"
    assert "run train_torn" not in caught.value.message


def test_without_a_pair_the_message_says_what_to_run(platform: Platform) -> None:
    holder = BundleHolder(BundleLoader(platform.serving("tiny_untrained")))
    with pytest.raises(ServingError, match="no production pair for tiny_untrained: run train_tiny_untrained") as caught:
        asyncio.run(holder.reload())
    assert (caught.value.status, caught.value.code) == (503, "no_production_pair")
    with pytest.raises(ServingError, match="run train_tiny_untrained"):
        holder.require()


def test_a_pair_that_the_gate_refused_is_named_with_the_gates_reason(platform: Platform, tmp_path: Path) -> None:
    settings = platform.serving("tiny_forecast")
    shutil.copy(settings.mlflow_tracking_uri.removeprefix("sqlite:///"), tmp_path / "copy.db")
    settings = replace(settings, mlflow_tracking_uri=f"sqlite:///{tmp_path / 'copy.db'}")
    store = PairStore(settings)
    store.client.delete_registered_model_alias("tiny_forecast_model", "production")
    # Tests before this one may have had version 2 in production.
    for key in store.client.get_registered_model("tiny_forecast_model").tags:
        if key.startswith("alias_history.production."):
            store.client.delete_registered_model_tag("tiny_forecast_model", key)
    refused = Evidence(False, "mae 3.1 does not beat the baseline repeat_last with 2.9").to_tag()
    store.client.set_model_version_tag("tiny_forecast_model", "2", tag_name(PROMOTION_GATE), refused)
    holder = BundleHolder(BundleLoader(settings))
    with pytest.raises(ServingError) as caught:
        asyncio.run(holder.reload())
    assert caught.value.code == "no_production_pair"
    assert holder.reason == caught.value.message
    assert caught.value.message.startswith(
        "no production pair for tiny_forecast: version 2 was refused by the promotion gate: mae 3.1 does not beat the "
        "baseline repeat_last with 2.9; run train_tiny_forecast again, or promote another version"
    )


def test_an_unsigned_pair_is_not_served_where_signatures_are_asked_for_until_it_is_signed(
    platform: Platform, tmp_path: Path
) -> None:
    key = write_key(tmp_path, "mine")
    settings = platform.serving("tiny_forecast", home=tmp_path, verify_keys=(key.public,))
    shutil.copy(settings.mlflow_tracking_uri.removeprefix("sqlite:///"), tmp_path / "copy.db")
    settings = replace(settings, mlflow_tracking_uri=f"sqlite:///{tmp_path / 'copy.db'}")
    holder = BundleHolder(BundleLoader(settings))
    with pytest.raises(ServingError) as caught:
        asyncio.run(holder.reload())
    assert (caught.value.status, caught.value.code) == (503, "reload_failed")
    assert caught.value.message.startswith("no pair could be loaded: PairIntegrityError: version 1 of 'tiny_forecast'")
    assert "is not signed, and MLPLATFORM_VERIFY_KEY asks for signatures" in caught.value.message
    assert holder.reason == caught.value.message
    PairStore(replace(settings, signing_key=key.private)).sign("tiny_forecast", 1, who="test", why="a test")
    assert asyncio.run(holder.reload()).pair.version == 1


def test_a_changed_artifact_is_refused_and_the_old_pair_stays(
    holder: BundleHolder, platform: Platform, fresh_pairs: Pairs
) -> None:
    asyncio.run(holder.reload())
    held = holder.current
    store = PairStore(platform.settings)
    store.promote("tiny_forecast", fresh_pairs[1].version, who="test", why="a test")
    artifact = _model_file(store, fresh_pairs[1])
    content = artifact.read_bytes()
    artifact.write_bytes(content + b"x")
    try:
        with pytest.raises(ServingError, match=r"version 1 is still served: PairIntegrityError: .*SHA-256") as caught:
            asyncio.run(holder.reload())
    finally:
        artifact.write_bytes(content)
    assert (caught.value.status, caught.value.code) == (503, "reload_failed")
    assert holder.current is held
    assert asyncio.run(holder.reload()).pair.version == 2


def test_a_changed_artifact_at_the_start_leaves_the_server_without_a_pair(
    holder: BundleHolder, platform: Platform, fresh_pairs: Pairs
) -> None:
    artifact = _model_file(PairStore(platform.settings), fresh_pairs[0])
    content = artifact.read_bytes()
    artifact.write_bytes(content + b"x")
    try:
        with pytest.raises(ServingError, match="no pair could be loaded: PairIntegrityError"):
            asyncio.run(holder.reload())
    finally:
        artifact.write_bytes(content)
    assert holder.current is None
    assert "no pair could be loaded" in holder.reason


def test_a_version_must_still_be_the_same_pair(platform: Platform) -> None:
    loader = BundleLoader(platform.serving("tiny_forecast"))
    pair = loader.production()
    assert loader.version(pair.version, pair.pair_id).pair_id == pair.pair_id
    with pytest.raises(PairNotFoundError, match=r"version 1 .* but pair other was asked for"):
        loader.version(1, "other")
    with pytest.raises(PairNotFoundError, match="version 99"):
        loader.version(99, pair.pair_id)


def test_loading_verifies_first(platform: Platform, fresh_pairs: Pairs) -> None:
    store = PairStore(platform.settings)
    artifact = _model_file(store, fresh_pairs[1])
    content = artifact.read_bytes()
    artifact.write_bytes(b"not a model")
    try:
        with pytest.raises(PairIntegrityError, match="were changed after registration"):
            BundleLoader(platform.serving("tiny_forecast")).load(fresh_pairs[1])
    finally:
        artifact.write_bytes(content)


def _model_file(store: PairStore, pair: PairInfo) -> Path:
    """Return a file of the model's state as it lies in the artifact store."""
    import mlflow

    uri = store.client.get_model_version_download_uri(f"{pair.name}_model", str(pair.version))
    folder = Path(mlflow.artifacts.download_artifacts(f"{uri}/artifacts/model"))
    return sorted(path for path in folder.rglob("*") if path.is_file() and "state" in path.parts)[0]
