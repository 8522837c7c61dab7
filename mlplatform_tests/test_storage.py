"""Atomic files and folders: a reader sees the old content or the new, whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from mlplatform import storage
from mlplatform.storage import StorageError, atomic_file, atomic_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_as_a_whole_and_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "state.json"
    for content in ("old", "new"):
        with atomic_file(target) as temporary:
            assert temporary.parent == target.parent
            temporary.write_text(content)
            assert not target.exists() or target.read_text() == "old"
        assert target.read_text() == content
    assert names(target.parent) == ["state.json"]


def write_half_a_file(target: Path) -> None:
    with atomic_file(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "state.json"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="stop"):
        write_half_a_file(target)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["state.json"]


def write_folder(target: Path, content: str) -> None:
    with atomic_folder(target) as folder:
        (folder / "a").write_text(content)
        (folder / "b").write_text(content)


def test_the_files_of_a_folder_change_together(tmp_path: Path) -> None:
    target = tmp_path / "pair"
    write_folder(target, "0")
    stop = threading.Event()
    seen: set[tuple[str, str]] = set()

    def read() -> None:
        while not stop.is_set():
            folder = target.resolve()
            try:
                seen.add(((folder / "a").read_text(), (folder / "b").read_text()))
            except FileNotFoundError:
                continue  # this version was replaced between the two reads

    reader = threading.Thread(target=read)
    reader.start()
    for version in range(1, 40):
        write_folder(target, str(version))
    stop.set()
    reader.join()
    assert seen
    assert all(a == b for a, b in seen)
    assert (target / "a").read_text() == "39"
    assert len(names(tmp_path)) == 2  # the link and the folder it names


def write_half(target: Path) -> None:
    with atomic_folder(target) as folder:
        (folder / "a").write_text("half")
        raise RuntimeError("stop")


def test_a_failed_folder_keeps_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "pair"
    write_folder(target, "old")
    before = names(tmp_path)
    with pytest.raises(RuntimeError, match="stop"):
        write_half(target)
    assert (target / "a").read_text() == "old"
    assert names(tmp_path) == before


def test_a_killed_writer_changes_nothing_and_is_cleaned_up_a_day_later(tmp_path: Path) -> None:
    target = tmp_path / "pair"
    write_folder(target, "old")
    program = f"""
        import os, signal
        from pathlib import Path
        from mlplatform.storage import atomic_folder
        with atomic_folder(Path({str(target)!r})) as folder:
            (folder / "a").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False).returncode == -signal.SIGKILL
    assert (target / "a").read_text() == "old"
    (abandoned,) = [path for path in tmp_path.glob(".pair.*") if path != target.resolve()]
    write_folder(target, "new")
    assert abandoned.exists()  # may still be someone's
    past = time.time() - storage.ABANDONED_AFTER_S - 60
    os.utime(abandoned, (past, past))
    write_folder(target, "newer")
    assert not abandoned.exists()
    assert (target / "a").read_text() == "newer"


def test_what_the_platform_did_not_write_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("mine")
    (tmp_path / "link").symlink_to("elsewhere", target_is_directory=True)
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("folder", "link", "dangling"):
        with pytest.raises(StorageError, match=f"{name} should be a link made by an earlier run.*move it away"):
            write_folder(tmp_path / name, "new")
    assert (tmp_path / "elsewhere" / "precious").read_text() == "mine"
