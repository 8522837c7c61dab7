"""Finding files: the order of places, the digest, and downloads that leave nothing half done."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mlplatform.config import DatasetConfig
from mlplatform.data.errors import DataError
from mlplatform.data.sources import files
from mlplatform.data.sources.files import locate_file
from mlplatform.settings import Settings
from mlplatform_tests.data.conftest import hourly_dataset

CONTENT = b"time,flow\n2024-01-01 00:00:00,1\n"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file, and one that ends before the length it announced."""

    def do_GET(self) -> None:
        if self.path not in ("/pump.csv", "/cut.csv"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT if self.path == "/pump.csv" else CONTENT[:10])

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test output clean."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def stored(settings: Settings) -> list[Path]:
    return [path for path in settings.downloads_dir.rglob("*") if path.is_file()]


def from_server(server: str, name: str = "pump.csv", sha256: str = DIGEST) -> DatasetConfig:
    return hourly_dataset(source={"uri": "pump.csv", "download_url": f"{server}/{name}", "sha256": sha256})


def test_the_data_folder_comes_before_the_current_one(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pump.csv").write_bytes(CONTENT)
    assert locate_file(hourly_dataset(), settings) == tmp_path / "pump.csv"
    (tmp_path / "input" / "pump.csv").write_bytes(CONTENT)
    assert locate_file(hourly_dataset(), settings) == tmp_path / "input" / "pump.csv"


def test_a_file_that_is_nowhere_lists_the_places_and_what_to_set(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        locate_file(hourly_dataset(), settings)
    for expected in (str(tmp_path / "input" / "pump.csv"), str(Path.cwd()), "MLPLATFORM_DATA_DIR", "download_url"):
        assert expected in str(error.value)


def test_an_absolute_path_is_looked_up_nowhere_else(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "input" / "pump.csv").write_bytes(CONTENT)
    with pytest.raises(DataError, match=r"looked in: /nowhere/pump\.csv\."):
        locate_file(hourly_dataset(source={"uri": "/nowhere/pump.csv"}), settings)


def test_a_folder_is_not_a_file(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "input" / "pump.csv").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        locate_file(hourly_dataset(), settings)


def test_the_digest_of_a_local_file_is_checked_and_nothing_else_is_taken(
    settings: Settings, tmp_path: Path, server: str
) -> None:
    (tmp_path / "input" / "pump.csv").write_bytes(CONTENT + b"2024-01-01 01:00:00,2\n")
    with pytest.raises(DataError, match=rf"has SHA-256 [0-9a-f]{{64}}, but source\.sha256 expects {DIGEST}"):
        locate_file(from_server(server), settings)
    assert stored(settings) == []


def test_a_download_is_checked_kept_and_not_repeated(settings: Settings, server: str) -> None:
    path = locate_file(from_server(server), settings)
    assert path.read_bytes() == CONTENT
    assert stored(settings) == [path]
    assert locate_file(from_server(server, name="gone.csv"), settings) == path


def test_a_damaged_download_is_fetched_again(settings: Settings, server: str) -> None:
    path = locate_file(from_server(server), settings)
    path.write_bytes(b"damaged")
    assert locate_file(from_server(server), settings).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "sha256", "message"),
    [
        ("pump.csv", "0" * 64, f"SHA-256 {DIGEST}, but source.sha256 expects {'0' * 64}; nothing was kept"),
        ("cut.csv", DIGEST, r"\(10 bytes\) has SHA-256 .* nothing was kept"),
        ("gone.csv", DIGEST, "failed: HTTP Error 404.*MLPLATFORM_DATA_DIR"),
    ],
)
def test_a_failed_download_leaves_no_file(
    name: str, sha256: str, message: str, settings: Settings, server: str
) -> None:
    with pytest.raises(DataError, match=message):
        locate_file(from_server(server, name, sha256), settings)
    assert stored(settings) == []


def test_a_server_that_does_not_answer_is_given_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(files, "DOWNLOAD_TIMEOUT_S", 0.2)
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as silent, pytest.raises(DataError, match="timed out"):
        locate_file(from_server(f"http://127.0.0.1:{silent.server_port}"), settings)
    assert stored(settings) == []


def test_only_web_addresses_are_downloaded(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_bytes(CONTENT)
    source = {"uri": "pump.csv", "download_url": (tmp_path / "other.csv").as_uri(), "sha256": DIGEST}
    with pytest.raises(DataError, match=r"must be an http\(s\) address"):
        locate_file(hourly_dataset(source=source), settings)


def test_without_a_data_folder_only_the_current_one_is_looked_up(settings: Settings) -> None:
    with pytest.raises(DataError, match=rf"looked in: {Path.cwd() / 'pump.csv'}\. Put"):
        locate_file(hourly_dataset(), replace(settings, data_dir=None))
