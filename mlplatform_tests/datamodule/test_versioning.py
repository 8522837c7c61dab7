"""Split files under DVC: hashes, idempotence, restoration, and no network."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mlplatform.datamodule.versioning import track
from mlplatform.settings import Settings


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path, dict[str, str]]:
    """A repository with one tracked file, made in a process that may not connect anywhere or write elsewhere."""
    home = tmp_path_factory.mktemp("home")
    settings = Settings.from_env({"MLPLATFORM_HOME": str(home)})
    path = settings.splits_dir / "pump" / "v1" / "reference.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"rows")
    program = f"""
        import sys
        from pathlib import Path

        def refuse(event, args):
            if event in ("socket.connect", "socket.getaddrinfo"):
                raise RuntimeError(f"network: {{args}}")
            if event == "os.mkdir" and not str(args[0]).startswith({str(home)!r}):
                raise RuntimeError(f"outside of the home: {{args}}")

        sys.addaudithook(refuse)
        from mlplatform.datamodule.versioning import track
        from mlplatform.settings import Settings
        settings = Settings.from_env({{"MLPLATFORM_HOME": {str(home)!r}}})
        print(track(settings, [Path({str(path)!r})])["reference.parquet"])
    """
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(home)}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], env=environ, capture_output=True, text=True, check=True
    )
    return settings, path, {"reference.parquet": result.stdout.strip()}


def test_a_tracked_file_is_known_by_its_md5(tracked: tuple[Settings, Path, dict[str, str]]) -> None:
    _, path, hashes = tracked
    expected = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    assert hashes == {"reference.parquet": expected}
    assert expected in path.with_name("reference.parquet.dvc").read_text()


def test_a_second_call_writes_nothing(tracked: tuple[Settings, Path, dict[str, str]]) -> None:
    settings, path, hashes = tracked
    before = {each: each.stat().st_mtime_ns for each in settings.splits_dir.rglob("*")}
    assert track(settings, [path]) == hashes
    assert {each: each.stat().st_mtime_ns for each in settings.splits_dir.rglob("*")} == before


def test_checkout_restores_a_lost_and_a_damaged_file(tracked: tuple[Settings, Path, dict[str, str]]) -> None:
    settings, path, _ = tracked
    command = [sys.executable, "-m", "dvc", "checkout", "--force", "--quiet"]
    environ = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    path.unlink()
    subprocess.run(command, cwd=settings.splits_dir, env=environ, check=True)
    assert path.read_bytes() == b"rows"


def test_a_changed_and_a_new_file_are_added(tracked: tuple[Settings, Path, dict[str, str]]) -> None:
    settings, path, _ = tracked
    train = path.with_name("train.parquet")
    for content in (b"first", b"second"):
        train.write_bytes(content)
        expected = hashlib.md5(content, usedforsecurity=False).hexdigest()
        assert track(settings, [path, train])["train.parquet"] == expected
    assert len([each for each in (settings.splits_dir / ".dvc" / "cache").rglob("*") if each.is_file()]) == 3


def test_usage_reporting_is_off(tracked: tuple[Settings, Path, dict[str, str]]) -> None:
    settings, _, _ = tracked
    assert "analytics = false" in (settings.splits_dir / ".dvc" / "config").read_text()
