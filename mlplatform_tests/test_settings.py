"""Settings: what the environment says, what is derived from it, and what never shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlplatform.settings import PACKAGED_CONF, Settings


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
    names = ("HOME", "CONF_DIR", "DATA_DIR", "SERVING_URL", "EXPERIMENT", "MAX_BODY_BYTES", "ADMIN_TOKEN", "REDIS_URL")
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
