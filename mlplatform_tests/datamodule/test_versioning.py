"""Split files under DVC: hashes, idempotence, restoration, and no network."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from mlplatform.datamodule.versioning import VersioningError, content, push, track
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
        from mlplatform.datamodule.versioning import VersioningError, content, push, track
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
    for rows in (b"first", b"second"):
        train.write_bytes(rows)
        expected = hashlib.md5(rows, usedforsecurity=False).hexdigest()
        assert track(settings, [path, train])["train.parquet"] == expected
    assert len([each for each in (settings.splits_dir / ".dvc" / "cache").rglob("*") if each.is_file()]) == 3


def test_usage_reporting_is_off(tracked: tuple[Settings, Path, dict[str, str]]) -> None:
    settings, _, _ = tracked
    assert "analytics = false" in (settings.splits_dir / ".dvc" / "config").read_text()


class TestRemote:
    """A remote given by `MLPLATFORM_DVC_REMOTE`: here a folder."""

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        """An installation with one file that was tracked twice, with different contents."""
        environ = {"MLPLATFORM_HOME": str(tmp_path / "home"), "MLPLATFORM_DVC_REMOTE": str(tmp_path / "remote")}
        return Settings.from_env(environ)

    def track(self, settings: Settings, rows: bytes) -> str:
        path = settings.splits_dir / "pump" / "v1" / "train.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rows)
        return track(settings, [path])["train.parquet"]

    def test_what_is_pushed_can_be_had_after_the_cache_is_lost(self, settings: Settings) -> None:
        first = self.track(settings, b"first")
        assert push(settings, [first]) == 1
        assert push(settings, [first]) == 0
        second = self.track(settings, b"second")
        assert push(settings, [first, second]) == 1
        shutil.rmtree(settings.splits_dir / ".dvc" / "cache")
        assert content(settings, first).read_bytes() == b"first"
        assert content(settings, second).read_bytes() == b"second"

    def test_an_old_content_needs_no_remote_while_the_cache_has_it(self, settings: Settings) -> None:
        first = self.track(settings, b"first")
        self.track(settings, b"second")
        assert content(replace(settings, dvc_remote=None), first).read_bytes() == b"first"

    def test_a_content_that_nobody_has_is_named(self, settings: Settings) -> None:
        digest = self.track(settings, b"first")
        shutil.rmtree(settings.splits_dir / ".dvc" / "cache")
        with pytest.raises(VersioningError, match=f"do not hold the content with the MD5 {digest}; set MLPLATFORM_DVC"):
            content(replace(settings, dvc_remote=None), digest)
        with pytest.raises(VersioningError, match=digest):
            content(settings, digest)

    def test_nothing_is_pushed_without_a_remote(self, settings: Settings) -> None:
        assert push(replace(settings, dvc_remote=None), [self.track(settings, b"first")]) is None

    def test_a_remote_that_cannot_be_written_to_is_named_without_its_password(self, settings: Settings) -> None:
        digest = self.track(settings, b"first")
        (settings.home / "file").write_text("")
        with pytest.raises(VersioningError, match=r"cannot be pushed to .*file/below \(MLPLATFORM_DVC_REMOTE\)"):
            push(replace(settings, dvc_remote=str(settings.home / "file" / "below")), [digest])
        with pytest.raises(VersioningError, match="cannot be pushed to s3://bucket") as error:
            push(replace(settings, dvc_remote="s3://user:hidden@bucket/splits"), [digest])
        assert "hidden" not in str(error.value)
        assert "hidden" not in repr(replace(settings, dvc_remote="s3://user:hidden@bucket/splits"))
