"""Finding the file behind a relative URI: local folders first, then a checked download."""

from __future__ import annotations

import hashlib
import logging
import shutil
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from mlplatform.config import DatasetConfig
from mlplatform.data.errors import DataError
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

DOWNLOAD_TIMEOUT_S = 30.0
# What makes a path a pattern.
WILDCARDS = frozenset("*?[")

logger = logging.getLogger(__name__)


def locate_file(dataset: DatasetConfig, settings: Settings) -> Path:
    """Return the local file of a dataset, downloading it if it is nowhere and `source.download_url` is set.

    A relative URI is looked up in `settings.data_dir`, if set, then in the current directory. Where `source.sha256` is
    set, the file's content is always checked against it.

    Raises:
        DataError: if there is no such file, it is not a plain file, the download fails or the content is not the
            expected one. No other file is ever taken instead.
    """
    _refuse_remote(dataset)
    places = local_places(dataset.source.uri, settings)
    for path in places:
        if path.is_file():
            _check_content(path, dataset)
            return path
        if path.exists():
            raise DataError(
                f"dataset {dataset.name!r}: {path} is a folder, but source.uri must name a file, or several by a "
                "pattern such as folder/*.csv"
            )
    if dataset.source.download_url is None:
        looked = ", ".join(str(path) for path in places)
        raise DataError(
            f"dataset {dataset.name!r}: file {dataset.source.uri!r} not found; looked in: {looked}. "
            "Put the file there, set MLPLATFORM_DATA_DIR to the folder that holds it, or set the dataset's "
            "source.download_url and source.sha256"
        )
    return _downloaded(dataset, dataset.source.download_url, settings)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def local_places(uri: str, settings: Settings) -> list[Path]:
    """Return where a path is looked up: in the data folder, if one is set, then in the current one."""
    path = Path(uri).expanduser()
    if path.is_absolute():
        return [path]
    folders = [*([settings.data_dir] if settings.data_dir else []), Path.cwd()]
    return [folder / path for folder in folders]


def _refuse_remote(dataset: DatasetConfig) -> None:
    if "://" in dataset.source.uri:
        raise DataError(
            f"dataset {dataset.name!r}: {dataset.source.uri!r} is not a local path, and only Parquet is read from "
            "elsewhere; copy the file here, or set source.download_url and source.sha256"
        )


def _check_content(path: Path, dataset: DatasetConfig) -> None:
    expected = dataset.source.sha256
    if expected is not None and (found := file_sha256(path)) != expected:
        raise DataError(
            f"dataset {dataset.name!r}: {path} has SHA-256 {found}, but source.sha256 expects {expected}; "
            "the file is another version or damaged. Replace it, or correct source.sha256 if the new content is wanted"
        )


def _downloaded(dataset: DatasetConfig, url: str, settings: Settings) -> Path:
    # The digest in the path keeps datasets apart that use one file name for different content.
    folder = settings.downloads_dir / str(dataset.source.sha256)[:16]
    target = folder / Path(dataset.source.uri).name
    if target.is_file() and file_sha256(target) == dataset.source.sha256:
        return target
    if urlsplit(url).scheme not in ("http", "https"):
        raise DataError(f"dataset {dataset.name!r}: source.download_url must be an http(s) address, but is {url!r}")
    logger.info("Downloading %s for dataset %s", url, dataset.name)
    try:
        with (
            atomic_file(target) as temporary,
            urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as response,  # noqa: S310 (scheme checked above)
        ):
            with temporary.open("wb") as file:
                shutil.copyfileobj(response, file)
            _check_download(temporary, url, dataset)
    except (OSError, HTTPException) as error:
        raise DataError(
            f"dataset {dataset.name!r}: {dataset.source.uri!r} is not a local file, and downloading {url} failed: "
            f"{error}. Without network access, set MLPLATFORM_DATA_DIR to a folder that holds the file"
        ) from error
    return target


def _check_download(path: Path, url: str, dataset: DatasetConfig) -> None:
    found = file_sha256(path)
    if found != dataset.source.sha256:
        raise DataError(
            f"dataset {dataset.name!r}: what {url} returned ({path.stat().st_size} bytes) has SHA-256 {found}, but "
            f"source.sha256 expects {dataset.source.sha256}; nothing was kept. Try again, or check both settings"
        )
