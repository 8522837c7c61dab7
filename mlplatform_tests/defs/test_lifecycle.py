"""The jobs of a model's life after training, as the Dagster page and the command line run them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from dagster import AssetKey, ExecuteInProcessResult

from mlplatform import api
from mlplatform.config import VERSION_GROUPS
from mlplatform.datamodule.splits import split_dir, write_split
from mlplatform.monitoring import write_report
from mlplatform.monitoring.quality import QualityBreak
from mlplatform.promotion.active_config import active_config_path, read_active_pair, read_active_versions
from mlplatform.promotion.evidence import keep_evidence
from mlplatform.registry.pairs import PREVIOUS, PRODUCTION
from mlplatform.registry.pairs.evidence import SERVING_PARITY, Evidence
from mlplatform.testing.drift_reports import yard_report
from mlplatform.testing.yard import EXPERIMENT, TRAIN, Yard
from mlplatform_tests.defs.test_assets import damage, failure

PROMOTE, ROLLBACK, REPAIR, REPRODUCE = "promote", "rollback", "repair", "reproduce"
BETTER = {"resources": {"training": {"config": {"overrides": ["model.params.num_boost_round=60"]}}}}


def asked(job: str, **values: Any) -> dict[str, Any]:
    """Return the run configuration of a lifecycle job."""
    return {"ops": {job: {"config": values}}}


def metadata(result: ExecuteInProcessResult) -> dict[str, Any]:
    """Return what a lifecycle job shows in the Dagster page."""
    (event,) = result.filter_events(lambda event: event.event_type_value == "STEP_OUTPUT")
    return {key: value.value for key, value in event.step_output_data.metadata.items()}


def production(yard: Yard) -> int | None:
    found = yard.pairs.find(EXPERIMENT, PRODUCTION)
    return found.version if found else None


@pytest.fixture(scope="module")
def two_versions(trained_yard: Yard, tmp_path_factory: pytest.TempPathFactory) -> Yard:
    """An installation in which version 1 and then version 2, a better one, were promoted. For reading only."""
    yard = trained_yard.clone_to(tmp_path_factory.mktemp("lifecycle"))
    assert production(yard) == 1
    assert yard.run(TRAIN, BETTER).success
    assert production(yard) == 2
    return yard


@pytest.fixture
def lived(two_versions: Yard, tmp_path: Path) -> Iterator[Yard]:
    """The installation with two versions; whatever a test does to registry and state is taken back."""
    import shutil

    database = Path(two_versions.settings.mlflow_tracking_uri.removeprefix("sqlite:///"))
    kept = [database, two_versions.settings.active_config_dir, two_versions.settings.splits_dir]
    for number, path in enumerate(kept):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / str(number))
    yield two_versions
    for number, path in enumerate(kept):
        if (tmp_path / str(number)).is_dir():
            shutil.rmtree(path)
            shutil.copytree(tmp_path / str(number), path)
        else:
            shutil.copy(tmp_path / str(number), path)


class TestRollback:
    """`rollback`."""

    def test_it_goes_to_the_previous_pair_and_a_second_one_comes_back(self, lived: Yard) -> None:
        result = lived.run(ROLLBACK, asked(ROLLBACK, who="operator", why="it forecasts nonsense"))
        assert production(lived) == 1
        shown = metadata(result)
        assert (shown["production"], shown["replaced"]) == (1, 2)
        assert shown["checked"] == "12 values of the stored answer agree bit for bit"
        assert "MLPLATFORM_ADMIN_TOKEN is not set" in shown["servers"]
        pair = lived.pairs.resolve(EXPERIMENT, PRODUCTION)
        assert read_active_versions(EXPERIMENT, lived.settings) == {key: pair.tags[key] for key in VERSION_GROUPS}
        assert read_active_pair(EXPERIMENT, lived.settings) == 1
        last = [change for change in lived.pairs.history(EXPERIMENT) if change.alias == PRODUCTION][-1]
        assert (last.from_version, last.to_version) == (2, 1)
        assert (last.who, last.why) == ("operator", "it forecasts nonsense")
        (event,) = result.filter_events(lambda event: event.event_type_value == "ASSET_MATERIALIZATION")
        assert event.asset_key == AssetKey([EXPERIMENT, "production_alias"])
        lived.run(ROLLBACK)
        assert production(lived) == 2

    def test_it_goes_to_a_version_that_is_given(self, lived: Yard) -> None:
        lived.run(ROLLBACK, asked(ROLLBACK, version=1))
        assert production(lived) == 1
        assert lived.pairs.resolve(EXPERIMENT, PREVIOUS).version == 2

    def test_a_version_that_is_not_there_changes_nothing(self, lived: Yard) -> None:
        result = lived.run(ROLLBACK, asked(ROLLBACK, version=7), raise_on_error=False)
        assert not result.success
        assert "no pair 'yard_xgboost' with version 7" in failure(result)
        assert production(lived) == 2

    def test_a_pair_that_is_not_what_was_registered_is_not_put_back(self, lived: Yard) -> None:
        uri = lived.pairs.client.get_model_version_download_uri(f"{EXPERIMENT}_model", "1")
        path = Path(mlflow.artifacts.download_artifacts(f"{uri}/artifacts/model")) / "model.json"
        whole = path.read_bytes()
        damage(lived.pairs, 1)
        try:
            result = lived.run(ROLLBACK, raise_on_error=False)
        finally:
            path.write_bytes(whole)
        assert not result.success
        assert "artifacts/model/model.json has SHA-256" in failure(result)
        assert production(lived) == 2
        assert read_active_pair(EXPERIMENT, lived.settings) == 2

    def test_servers_are_told(self, lived: Yard) -> None:
        asked_for: list[str] = []

        class Server(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked_for.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"experiment": "yard_xgboost", "version": 1}')

            def log_message(self, *_: Any) -> None:
                """Keep quiet."""

        listening = HTTPServer(("127.0.0.1", 0), Server)
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.server_port}"
        told = {**lived.environ, "MLPLATFORM_SERVING_URL": url, "MLPLATFORM_ADMIN_TOKEN": "a-token-for-tests"}
        try:
            result = replace(lived, environ=told).run(ROLLBACK)
        finally:
            listening.shutdown()
            thread.join()
            listening.server_close()
        assert asked_for == ["/admin/reload"]
        assert metadata(result)["servers"] == f"{url}/admin/reload serves yard_xgboost version 1"


class TestPromote:
    """`promote`."""

    def test_an_older_version_does_not_pass_the_gate(self, lived: Yard) -> None:
        result = lived.run(PROMOTE, asked(PROMOTE, version=1))
        shown = metadata(result)
        assert (shown["promoted"], shown["outcome"], shown["production"]) == (False, "older", 2)
        assert "version 1 is older than the champion, version 2" in shown["reason"]
        assert "needed to beat the champion" in shown["reference_mae"]
        assert "data:image/png;base64," in shown["plot"]
        assert production(lived) == 2

    def test_a_better_version_passes_after_a_rollback(self, lived: Yard) -> None:
        lived.run(ROLLBACK)
        dry = metadata(lived.run(PROMOTE, asked(PROMOTE, version=2, dry_run=True)))
        assert (dry["promoted"], dry["outcome"], production(lived)) == (False, "dry_run", 1)
        shown = metadata(lived.run(PROMOTE, asked(PROMOTE, who="operator", why="it was not its fault")))
        assert (shown["promoted"], shown["outcome"], shown["production"]) == (True, "better", 2)
        assert production(lived) == 2
        assert read_active_pair(EXPERIMENT, lived.settings) == 2
        last = [change for change in lived.pairs.history(EXPERIMENT) if change.alias == PRODUCTION][-1]
        assert (last.who, last.why) == ("operator", "it was not its fault")

    def test_a_blank_reason_is_no_person_s_word_for_broken_data(self, lived: Yard) -> None:
        lived.run(ROLLBACK)
        path = write_report(yard_report(quality=(QualityBreak("stuck", "load_pu", ""),)), lived.settings)
        try:
            result = lived.run(PROMOTE, asked(PROMOTE, version=2, why="  "), raise_on_error=False)
            assert not result.success
            assert "which is no reason; say it, or leave why out" in failure(result)
            change = api.promote(EXPERIMENT, 2, why=" \t", settings=lived.settings)
            assert (change.done, production(lived)) == (False, 1)
            assert "the data are broken (stuck:load_pu)" in change.reason
            assert metadata(lived.run(PROMOTE, asked(PROMOTE, version=2, why=" mended since ")))["promoted"]
        finally:
            path.unlink()
        last = [change for change in lived.pairs.history(EXPERIMENT) if change.alias == PRODUCTION][-1]
        assert last.why == "mended since"

    def test_the_policy_is_today_s(self, lived: Yard) -> None:
        lived.run(ROLLBACK)
        config = lived.config
        strict = config.model_copy(update={"promotion": config.promotion.model_copy(update={"margin": 0.9})})
        from mlplatform.promotion.by_hand import promote_version

        promotion = promote_version(strict, lived.pairs, 2, who="test")
        assert (promotion.promoted, promotion.outcome) == (False, "not_better")
        assert "90.00%" in promotion.reason

    def test_what_serving_would_compute_differently_is_not_promoted(
        self, lived: Yard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from mlplatform.promotion import checks as candidate_checks
        from mlplatform.promotion.parity import ParityReport

        lived.run(ROLLBACK)
        different = ParityReport(2, 32, ("entity 2: the online window of 'load_pu' differs",))
        monkeypatch.setattr(candidate_checks, "check_parity", lambda *_, **__: different)
        result = lived.run(PROMOTE, raise_on_error=False)
        assert not result.success
        assert "failed the check serving_parity: entity 2" in failure(result)
        assert production(lived) == 1


class TestProductionAlias:
    """The asset, materialised directly, without the run that trained."""

    def test_a_check_that_failed_in_another_run_fails_this_one(self, lived: Yard) -> None:
        lived.run(ROLLBACK)
        newest = lived.pairs.resolve(EXPERIMENT, "2")
        keep_evidence(lived.pairs, newest, SERVING_PARITY, Evidence(False, "entity 2 differs"))
        result = lived.materialize("production_alias", raise_on_error=False)
        assert not result.success
        assert "failed the check serving_parity: entity 2 differs" in failure(result)
        assert production(lived) == 1

    def test_a_stale_gate_changes_nothing_and_says_why(self, lived: Yard) -> None:
        # The gate's decision on version 2 was against version 1; by hand, version 1 is put back, and is that again.
        lived.run(ROLLBACK)
        lived.pairs.client.delete_model_version_tag(f"{EXPERIMENT}_model", "2", "check.promotion_gate")
        result = lived.materialize("production_alias")
        (event,) = result.get_asset_materialization_events()
        shown = {key: value.value for key, value in event.materialization.metadata.items()}
        assert (shown["promoted"], shown["outcome"], shown["production"]) == (False, "gate_missing", 1)
        run = lived.pairs.client.get_run(lived.candidate.run_id)
        assert (run.data.tags["promotion.promote"], run.data.tags["promotion.outcome"]) == ("false", "gate_missing")
        assert production(lived) == 1

    def test_a_dry_run_changes_nothing(self, lived: Yard) -> None:
        lived.run(ROLLBACK)
        result = lived.materialize(
            "production_alias", run_config={"resources": {"training": {"config": {"dry_run": True}}}}
        )
        (event,) = result.get_asset_materialization_events()
        assert event.materialization.metadata["outcome"].value == "dry_run"
        assert production(lived) == 1


class TestRepair:
    """`repair`."""

    def test_nothing_to_do_is_said(self, lived: Yard) -> None:
        shown = metadata(lived.run(REPAIR))
        assert (shown["repaired"], shown["damaged"], shown["production"], shown["latest"]) == ("none", "none", 2, 2)

    def test_an_active_configuration_that_is_behind_or_garbage_is_written_anew(self, lived: Yard) -> None:
        path = active_config_path(EXPERIMENT, lived.settings)
        for text in ("split_version: [", path.read_text().replace("pair_version: 2", "pair_version: 1")):
            path.write_text(text)
            assert "wrote active_config.yaml for version 2" in metadata(lived.run(REPAIR))["repaired"]
            assert read_active_pair(EXPERIMENT, lived.settings) == 2

    def test_mirrors_that_were_left_behind_are_put_right(self, lived: Yard) -> None:
        lived.pairs.client.set_registered_model_alias(f"{EXPERIMENT}_forecaster", PRODUCTION, "1")
        assert "yard_xgboost_forecaster" in metadata(lived.run(REPAIR))["repaired"]
        assert lived.pairs.client.get_model_version_by_alias(f"{EXPERIMENT}_forecaster", PRODUCTION).version in ("2", 2)


class TestReproduce:
    """`reproduce`."""

    def test_the_production_pair_comes_out_with_the_same_bits(self, lived: Yard) -> None:
        shown = metadata(lived.run(REPRODUCE))
        assert (shown["version"], shown["agrees_bit_for_bit"]) == (2, True)
        for what in ("stored input example | True", "reference set | True", "artifacts of the model | True"):
            assert what in shown["comparisons"]
        assert shown["differences"] == "none"
        assert lived.pairs.resolve(EXPERIMENT, "latest").version == 2

    def test_rows_that_were_rebuilt_since_come_from_dvc(self, lived: Yard) -> None:
        config, settings = lived.config, lived.settings
        history = pd.read_parquet(split_dir(settings, "yard", "yard") / "train.parquet").drop(columns="is_context")
        history.loc[history.index[5], "load_pu"] += 0.25
        recorded = lived.pairs.client.get_run(lived.pairs.resolve(EXPERIMENT, "1").run_id).data.tags
        write_split(config.dataset, config.split, history, settings)
        shown = metadata(lived.run(REPRODUCE, asked(REPRODUCE, version=1)))
        assert (shown["version"], shown["agrees_bit_for_bit"]) == (1, True)
        assert f"train | DVC content {recorded['dvc.train']}" in shown["data"]
        assert "part train" in shown["differences"]

    def test_what_comes_out_otherwise_is_shown_with_what_changed_since(
        self, lived: Yard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from mlplatform.promotion import reproduce

        train = reproduce._train_again

        def train_otherwise(config: Any, *arguments: Any) -> Any:
            params = {**config.model.params, "num_boost_round": 3}
            model = config.model.model_copy(update={"params": params})
            return train(config.model_copy(update={"model": model}), *arguments)

        monkeypatch.setattr(reproduce, "_train_again", train_otherwise)
        monkeypatch.setattr(reproduce, "version", lambda _library: "99.0")
        shown = metadata(lived.run(REPRODUCE))
        assert not shown["agrees_bit_for_bit"]
        assert "values differ, by at most" in shown["comparisons"]
        assert "xgboost was" in shown["differences"]
        assert "is 99.0" in shown["differences"]

    def test_rows_that_nobody_has_any_more_are_named(self, lived: Yard) -> None:
        import shutil

        (split_dir(lived.settings, "yard", "yard") / "train.parquet").unlink()
        shutil.rmtree(lived.settings.splits_dir / ".dvc" / "cache")
        result = lived.run(REPRODUCE, raise_on_error=False)
        assert not result.success
        assert "the rows of part 'train' with SHA-256" in failure(result)
        assert "MLPLATFORM_DVC_REMOTE" in failure(result)
