"""Settings: what the environment says, what is derived from it, and what never shows."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from mlplatform.settings import (
    PACKAGED_CONF,
    AddressError,
    Settings,
    check_dagster_home,
    sqlite_address,
    sqlite_file,
)


def test_everything_local_lives_under_the_home(tmp_path: Path) -> None:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)})
    folders = [
        name for name in dir(Settings) if name.endswith("_dir") and isinstance(getattr(Settings, name), property)
    ]
    assert len(folders) >= 8
    for name in folders:
        assert getattr(settings, name).is_relative_to(tmp_path), name
    assert settings.mlflow_tracking_uri == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert settings.mlflow_artifact_root == f"file://{tmp_path}/mlflow/artifacts"


def test_servers_and_folders_come_from_the_environment(tmp_path: Path) -> None:
    settings = Settings.from_env(
        {
            "MLPLATFORM_HOME": str(tmp_path),
            "MLPLATFORM_CONF_DIR": str(tmp_path / "conf"),
            "MLPLATFORM_DATA_DIR": str(tmp_path / "data"),
            "MLFLOW_TRACKING_URI": "http://mlflow:5000",
            "MLPLATFORM_ARTIFACT_ROOT": "s3://bucket/artifacts",
            "MLPLATFORM_SERVING_URL": "http://serving:80/",
            "MLPLATFORM_EXPERIMENT": "other",
            "MLPLATFORM_MAX_BODY_BYTES": "10",
        }
    )
    assert settings.conf_dirs == (tmp_path / "conf", PACKAGED_CONF)
    assert settings.data_dir == tmp_path / "data"
    assert settings.mlflow_tracking_uri == "http://mlflow:5000"
    assert settings.mlflow_artifact_root == "s3://bucket/artifacts"
    assert settings.serving_url == "http://serving:80"
    assert settings.experiment == "other"
    assert settings.max_body_bytes == 10


def test_an_empty_variable_counts_as_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = (
        "HOME",
        "CONF_DIR",
        "DATA_DIR",
        "SERVING_URL",
        "EXPERIMENT",
        "MAX_BODY_BYTES",
        "ADMIN_TOKEN",
        "REDIS_URL",
        "SIGNING_KEY",
        "VERIFY_KEY",
    )
    empty = {f"MLPLATFORM_{name}": "" for name in names} | {"MLFLOW_TRACKING_URI": ""}
    assert Settings.from_env(empty) == Settings.from_env({})
    assert Settings.from_env(empty).home == tmp_path / ".mlplatform"


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "1MB"])
def test_a_body_limit_that_is_no_positive_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"MLPLATFORM_MAX_BODY_BYTES must be a positive whole number, but is '{text}'"):
        Settings.from_env({"MLPLATFORM_MAX_BODY_BYTES": text})


def test_secrets_do_not_show() -> None:
    settings = Settings.from_env(
        {
            "MLPLATFORM_ADMIN_TOKEN": "hunter2",
            "MLPLATFORM_REDIS_URL": "redis://user:hunter2@redis",
            "MLFLOW_TRACKING_URI": "postgresql://user:hunter2@db/mlflow",
        }
    )
    assert settings.admin_token == "hunter2"
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in f"{settings}"


def test_keys_of_signatures_are_paths_and_what_is_private_never_shows(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "keys.of.today")
    settings = Settings.from_env(
        {
            "MLPLATFORM_SIGNING_KEY": "/secret/place/of.pem",
            "MLPLATFORM_SIGNING_KEY_PASSWORD": "hunter2",
            "MLPLATFORM_VERIFY_KEY": f"{tmp_path / 'link'}:relative.pem",
        }
    )
    assert (settings.signing_key, settings.signing_key_password) == (Path("/secret/place/of.pem"), "hunter2")
    # A link is not followed: it may lead to another folder of keys tomorrow.
    assert settings.verify_keys == (tmp_path / "link", Path.cwd() / "relative.pem")
    assert "hunter2" not in repr(settings)
    assert "/secret/place" not in repr(settings)
    reader = settings.without_signing_key()
    assert (reader.signing_key, reader.signing_key_password) == (None, None)
    assert reader.verify_keys == settings.verify_keys


@pytest.mark.parametrize("text", [":", "a.pem:", " "])
def test_keys_to_verify_that_name_nothing_are_an_error_and_not_no_keys(text: str) -> None:
    with pytest.raises(ValueError, match="MLPLATFORM_VERIFY_KEY must name files, but is"):
        Settings.from_env({"MLPLATFORM_VERIFY_KEY": text})


@pytest.mark.parametrize("name", ["plain", "with space", "Öl", "a?b", "%41", "50%", "a#b", "a?x=%3F&y#z@:+;"])
def test_the_address_of_a_sqlite_file_leads_an_engine_to_this_very_file(name: str, tmp_path: Path) -> None:
    from sqlalchemy import create_engine, text

    file = tmp_path / name / "state.db"
    file.parent.mkdir()
    address = sqlite_address(file)
    engine = create_engine(address)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE here (number INTEGER)"))
    engine.dispose()
    assert sqlite3.connect(file).execute("SELECT name FROM sqlite_master").fetchall() == [("here",)]
    assert list(tmp_path.iterdir()) == [file.parent]
    assert sqlite_file(address) == file


@pytest.mark.parametrize(
    "address", ["postgresql://user:pw@host/db", "http://mlflow:5000", "sqlite:///:memory:", "sqlite://"]
)
def test_a_database_that_is_no_file_has_no_path(address: str) -> None:
    assert sqlite_file(address) is None


def test_options_and_escapes_of_an_address_are_not_part_of_its_file() -> None:
    assert sqlite_file("sqlite:////data/%41%20b/mlflow.db?timeout=10") == Path("/data/A b/mlflow.db")


@pytest.mark.parametrize("name", ["/state/a?b/dagster", "/state/%41/dagster"])
def test_a_dagster_home_that_dagster_would_miss_is_refused(name: str) -> None:
    with pytest.raises(AddressError, match=r"DAGSTER_HOME is .* would keep its databases elsewhere; set DAGSTER_HOME"):
        check_dagster_home({"DAGSTER_HOME": name})


@pytest.mark.parametrize("environ", [{}, {"DAGSTER_HOME": ""}, {"DAGSTER_HOME": "/state/50% of #1/Öl"}])
def test_other_dagster_homes_are_taken(environ: dict[str, str]) -> None:
    check_dagster_home(environ)


def test_examples_can_be_hidden_and_what_they_are_made_of_stays(tmp_path: Path) -> None:
    from mlplatform.config import ConfigError, experiment_names, load_all_datasets, load_experiment, options

    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    environ = {"MLPLATFORM_HOME": str(tmp_path), "MLPLATFORM_CONF_DIR": str(tmp_path / "conf")}
    assert "fleet_xgboost" in experiment_names(Settings.from_env(environ))
    hidden = Settings.from_env({**environ, "MLPLATFORM_EXAMPLES": "0"})
    assert experiment_names(hidden) == ()
    assert load_all_datasets(hidden) == ({}, {})
    assert "xgboost_v1" in options("model", hidden)
    with pytest.raises(ConfigError, match="unknown experiment 'fleet_xgboost'"):
        load_experiment("fleet_xgboost", settings=hidden)
    with pytest.raises(ValueError, match="MLPLATFORM_EXAMPLES must be 0 or 1, but is 'no'"):
        Settings.from_env({**environ, "MLPLATFORM_EXAMPLES": "no"})
