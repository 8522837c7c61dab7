"""Status, history, promotion, rollback, comparison, forecasts, export and deletion of a trained installation."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlplatform import api
from mlplatform.config import ConfigError
from mlplatform.features import EntityTypeError
from mlplatform.forecasts import make_forecasts, read_forecasts
from mlplatform.registry import RegistryAwayError
from mlplatform.registry.pairs import PairNotFoundError
from mlplatform.settings import AddressError
from mlplatform.testing.yard import EXPERIMENT, TRAIN, Yard


@pytest.fixture(scope="module")
def yard(trained_yard: Yard, tmp_path_factory: pytest.TempPathFactory) -> Yard:
    """An installation of which version 1 is in production and version 2 was refused."""
    yard = trained_yard.clone_to(tmp_path_factory.mktemp("api"))
    assert yard.run(TRAIN).success
    return yard


def test_a_training_makes_nothing_where_dagster_would_keep_its_databases_elsewhere(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with pytest.raises(AddressError, match="DAGSTER_HOME is"):
        api.train(EXPERIMENT, settings=replace(yard.settings, home=tmp_path / "a?b"))
    assert not list(tmp_path.rglob("dagster*"))
    assert not (tmp_path / "a").exists()


def test_status_says_what_is_in_production_and_why_nothing_newer_is(yard: Yard) -> None:
    found = api.status(settings=yard.settings)
    (own,) = found.experiments
    champion = yard.pairs.resolve(EXPERIMENT)
    assert (own.experiment, own.production, own.newest, own.pair_id) == (EXPERIMENT, 1, 2, champion.pair_id)
    assert own.since == champion.promoted_at
    assert own.why_not_newer is not None
    assert own.why_not_newer.startswith("version 2 was refused by the promotion gate")
    assert own.metric == "mae"
    assert own.score == pytest.approx(yard.pairs.client.get_run(champion.run_id).data.metrics["reference_mae"])
    assert "fleet_xgboost" in found.untrained
    assert EXPERIMENT not in found.untrained
    (server,) = found.servers
    assert server.problem == "not running"
    assert found.to_frame()["experiment"].tolist() == [EXPERIMENT]
    assert EXPERIMENT in found._repr_html_()


def test_status_of_what_was_never_trained_and_of_what_is_not(yard: Yard) -> None:
    found = api.status(["fleet_xgboost"], settings=yard.settings, with_servers=False)
    assert [each.production for each in found.experiments] == [None]
    assert not found.experiments[0].is_trained
    with pytest.raises(ConfigError, match="unknown experiment 'nothing'"):
        api.status(["nothing"], settings=yard.settings)


@pytest.mark.parametrize(
    "ask",
    [
        api.history,
        api.compare,
        api.forecast,
        api.promote,
        api.rollback,
        lambda name, settings: api.export_pair(name, settings.home / "out", settings=settings),
    ],
    ids=["history", "compare", "forecast", "promote", "rollback", "export"],
)
def test_who_asks_before_anything_was_trained_leaves_no_registry(ask: Any, yard: Yard, tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    settings = replace(yard.settings, home=tmp_path, mlflow_tracking_uri=f"sqlite:///{database}")
    with pytest.raises(PairNotFoundError, match=f"run mlplatform train {EXPERIMENT}"):
        ask(EXPERIMENT, settings=settings)
    assert not database.exists()


def test_history_tells_versions_and_moves(yard: Yard) -> None:
    found = api.history(EXPERIMENT, settings=yard.settings)
    assert [each.version for each in found.versions] == [2, 1]
    assert found.versions[1].alias_names == ("production",)
    assert found.versions[0].verdict.startswith("was refused by the promotion gate")
    moved = [(each.alias, each.from_version, each.to_version) for each in found.moves]
    assert moved == [("staging", None, 1), ("production", None, 1), ("staging", 1, 2)]
    assert len(api.history(EXPERIMENT, limit=1, settings=yard.settings).versions) == 1


def test_promotion_goes_through_the_gate(yard: Yard) -> None:
    change = api.promote(EXPERIMENT, 2, settings=yard.settings)
    assert (change.done, change.production) == (False, 1)
    assert change.reason
    with pytest.raises(PairNotFoundError):
        api.promote(EXPERIMENT, 99, settings=yard.settings)


def test_rollback_and_back(yard: Yard, tmp_path: Path) -> None:
    own = yard.clone_to(tmp_path)
    with pytest.raises(PairNotFoundError, match="nothing to go back to"):
        api.rollback(EXPERIMENT, settings=own.settings)
    change = api.rollback(EXPERIMENT, 2, who="me", why="a test", settings=own.settings)
    assert (change.done, change.production) == (True, 2)
    found = api.history(EXPERIMENT, settings=own.settings)
    last = found.moves[-1]
    assert (last.alias, last.from_version, last.to_version, last.who, last.why) == ("production", 1, 2, "me", "a test")
    ended = f"was in production until {last.when:%Y-%m-%d %H:%M} UTC"
    assert [each.verdict for each in found.versions] == ["is in production", f"{ended}, replaced by version 2"]
    api.rollback(EXPERIMENT, why="worse", settings=own.settings)
    (status,) = api.status(settings=own.settings, with_servers=False).experiments
    assert status.why_not_newer is not None
    assert status.why_not_newer.startswith("version 2 was in production until ")
    assert status.why_not_newer.endswith(", then rolled back to version 1: worse")


def test_two_versions_beside_each_other(yard: Yard) -> None:
    same = api.compare(EXPERIMENT, 1, 1, settings=yard.settings)
    assert same.differences == {}
    found = api.compare(EXPERIMENT, settings=yard.settings)
    assert (found.first, found.second) == (1, 2)
    assert "reference_mae" in found.scores
    assert not [name for name in found.scores if name.endswith("_scaled")]
    assert list(found.to_frame().columns) == ["version 1", "version 2"]


def test_the_newest_in_production_is_compared_with_the_one_before(yard: Yard, tmp_path: Path) -> None:
    own = yard.clone_to(tmp_path)
    of_first = api.compare(EXPERIMENT, second=1, settings=own.settings)
    assert (of_first.first, of_first.second) == (1, 1)
    api.rollback(EXPERIMENT, 2, why="a test", settings=own.settings)
    found = api.compare(EXPERIMENT, settings=own.settings)
    assert (found.first, found.second) == (1, 2)
    same = api.compare(EXPERIMENT, "production", settings=own.settings)
    assert (same.first, same.second) == (2, 2)


def test_a_forecast_has_the_numbers_of_the_job(yard: Yard) -> None:
    found = api.forecast(EXPERIMENT, settings=yard.settings)
    report = make_forecasts(yard.config, yard.settings)
    expected = read_forecasts(yard.settings, EXPERIMENT, report.origin)
    for column in ("entity_id", "timestamp", "value", "lower", "upper"):
        assert found.rows[column].tolist() == expected[column].tolist()
    assert found.version == 1
    assert found.left_out.empty


def test_a_forecast_of_some_entities_and_of_a_past_moment(yard: Yard) -> None:
    found = api.forecast(EXPERIMENT, ["2", "99"], at="2024-02-20T12:00:00Z", settings=yard.settings)
    assert set(found.rows["entity_id"]) == {2}
    assert found.rows["timestamp"].iloc[0] == pd.Timestamp("2024-02-20T13:00:00Z")
    assert found.left_out["entity_id"].tolist() == [99]
    assert found.left_out["reason"].tolist() == ["unknown"]


@pytest.mark.parametrize("entity", ["02", "2.0", "two", "+2", "\N{ARABIC-INDIC DIGIT TWO}", str(2**63)])
def test_an_id_in_other_words_is_not_taken_for_another(yard: Yard, entity: str) -> None:
    with pytest.raises(EntityTypeError, match="entity ids are whole numbers of 64 bits, but got"):
        api.forecast(EXPERIMENT, ["2", entity], at="2024-02-20T12:00:00Z", settings=yard.settings)


def test_an_exported_pair_answers_without_the_registry(yard: Yard, tmp_path: Path) -> None:
    from mlplatform.datamodule import Panel
    from mlplatform.features.retrieval import load_history

    folder = api.export_pair(EXPERIMENT, tmp_path / "out", settings=yard.settings)
    pair = yard.pairs.resolve(EXPERIMENT)
    rows = load_history(yard.config.dataset, pair.contract.columns, yard.settings)
    rows = rows[rows["entity_id"] == 1].tail(pair.contract.input_rows)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    environ = {"PATH": "/usr/bin:/bin", "MLPLATFORM_HOME": str(tmp_path / "no_home"), "PYTHONPATH": str(Path.cwd())}
    program = [sys.executable, str(folder / "predict.py"), str(tmp_path / "rows.csv"), str(tmp_path / "answers.csv")]
    subprocess.run(program, check=True, env=environ, capture_output=True, timeout=120)
    expected = yard.pairs.load(pair).answer(Panel.from_frame(rows, pair.contract.columns)).point
    answered = pd.read_csv(tmp_path / "answers.csv")["top_oil_c"].to_numpy(dtype=np.float32)
    np.testing.assert_allclose(answered, expected.ravel(), rtol=1e-6)
    for rows_file, reason in (
        (tmp_path / "nowhere.csv", "No such file"),
        (tmp_path / "answers.csv", "missing columns"),
    ):
        refused = subprocess.run(
            [*program[:2], str(rows_file)], env=environ, capture_output=True, text=True, timeout=120
        )
        assert refused.returncode == 1
        assert refused.stderr.splitlines()[-1].startswith(f"{rows_file}: ")
        assert reason in refused.stderr
        assert "Traceback" not in refused.stderr
    with pytest.raises(ConfigError, match="not an empty folder"):
        api.export_pair(EXPERIMENT, folder, settings=yard.settings)


def test_deletion_takes_all_of_an_experiment_and_nothing_else(yard: Yard, tmp_path: Path) -> None:
    own = yard.clone_to(tmp_path)
    plan = api.plan_deletion(EXPERIMENT, settings=own.settings)
    assert plan.production == 1
    assert set(plan.registered.values()) == {2}
    assert own.pairs.find(EXPERIMENT, "production") is not None  # a plan changes nothing
    assert api.delete(EXPERIMENT, settings=own.settings) == plan
    assert not [folder for folder in plan.folders if Path(folder).exists()]
    assert api.plan_deletion(EXPERIMENT, settings=own.settings).is_empty
    assert own.settings.raw_dir.joinpath("yard").exists()
    assert api.status(settings=own.settings, with_servers=False).experiments == ()
    # What was deleted can be trained anew under its name.
    assert own.run(TRAIN).success
    assert own.pairs.resolve(EXPERIMENT).version == 1


def test_what_is_in_production_without_its_yaml_is_shown_and_can_go(yard: Yard, tmp_path: Path) -> None:
    own = yard.clone_to(tmp_path)
    path = own.conf / "experiment" / f"{EXPERIMENT}.yaml"
    path.write_text("a: [")
    (broken,) = api.status(settings=own.settings, with_servers=False).experiments
    assert (broken.production, bool(broken.mistakes)) == (1, True)
    path.unlink()
    (orphan,) = api.status(settings=own.settings, with_servers=False).experiments
    assert (orphan.experiment, orphan.production, orphan.newest) == (EXPERIMENT, 1, 2)
    assert "its YAML is gone" in orphan.mistakes[0]
    with pytest.raises(ConfigError, match="unknown experiment"):
        api.plan_deletion(EXPERIMENT, with_data=True, settings=own.settings)
    plan = api.delete(EXPERIMENT, settings=own.settings)
    assert set(plan.registered.values()) == {2}
    assert "tables and splits of its dataset" in plan.kept[0]
    assert api.status(settings=own.settings, with_servers=False).experiments == ()


def test_deletion_with_the_data_leaves_no_table_and_no_snapshot(yard: Yard, tmp_path: Path) -> None:
    own = yard.clone_to(tmp_path)
    plan = api.delete(EXPERIMENT, with_data=True, settings=own.settings)
    assert str(own.settings.raw_dir / "yard") in map(str, plan.folders)
    left = [path.name for path in own.settings.raw_dir.iterdir() if not path.name.endswith(".lock")]
    assert left == []
    assert not (own.settings.features_dir / "yard").exists()
    assert api.plan_deletion(EXPERIMENT, with_data=True, settings=own.settings).is_empty


def test_data_that_others_use_stays(yard: Yard, tmp_path: Path) -> None:
    from mlplatform.testing.yard import write_experiment

    own = yard.clone_to(tmp_path)
    write_experiment(own.conf, "yard_other")
    with pytest.raises(ConfigError, match="yard_other use them, too"):
        api.plan_deletion(EXPERIMENT, with_data=True, settings=own.settings)


def test_the_doctor_finds_what_is_wrong(yard: Yard, tmp_path: Path) -> None:
    own = yard.clone_to(tmp_path)
    own.settings.home.chmod(0o777)
    (own.conf / "experiment" / "broken.yaml").write_text("name: [")
    refusing = replace(own.settings, redis_url="redis://user:secret@127.0.0.1:1/0")
    found = api.diagnose(refusing)
    bad = {each.what: each for each in found if each.level == "bad"}
    assert {"state", "configuration", "online store"} <= set(bad)
    assert all(each.remedy for each in bad.values())
    assert "secret" not in repr(found)


def test_a_configuration_folder_that_is_to_come_is_no_mistake(yard: Yard, tmp_path: Path) -> None:
    found = api.diagnose(replace(yard.settings, home=tmp_path, conf_dir=tmp_path / "conf"))
    (configuration,) = [each for each in found if each.what == "configuration"]
    assert (configuration.level, configuration.found) == ("note", f"{tmp_path / 'conf'} is not there yet")
    assert "mlplatform new" in configuration.remedy


def test_a_registry_that_is_away_or_damaged_is_named_without_its_password(yard: Yard, tmp_path: Path) -> None:
    away = replace(yard.settings, mlflow_tracking_uri="http://bob:hunter2@127.0.0.1:1")
    damaged = tmp_path / "mlflow.db"
    damaged.write_bytes(b"no database" * 100)
    broken = replace(yard.settings, mlflow_tracking_uri=f"sqlite:///{damaged}")
    for settings, named in ((away, r"http://\*\*\*@127.0.0.1:1 .* does not answer"), (broken, f"{damaged} should be")):
        for ask in (api.history, api.forecast, api.plan_deletion, api.status):
            with pytest.raises(RegistryAwayError, match=named) as caught:
                ask(EXPERIMENT, settings=settings) if ask is not api.status else ask(settings=settings)
            assert "hunter2" not in str(caught.value)
        (registry,) = [each for each in api.diagnose(settings) if each.what == "registry"]
        assert (registry.level, bool(registry.remedy)) == ("bad", True)
        assert "hunter2" not in repr(registry)
