"""Files that may be compressed, opened by what they hold, whatever they are called."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from mlplatform.data.errors import DataError

# First bytes of compressed files. One that is a ZIP file may also be a workbook, which holds several files.
GZIP, BZIP2, XZ, ZSTD, ZIP = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"
# What unpacking raises for a file that ends early, is damaged, or is encrypted.
DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, NotImplementedError)


@contextmanager
def open_unpacked(path: Path, subject: str) -> Iterator[IO[bytes]]:
    """Open a file for reading its content, unpacked if it is compressed by gzip, bzip2, xz, Zstandard or ZIP.

    Parameters:
        subject: what errors are about, for example a dataset.

    Raises:
        DataError: if the file is damaged, or is a ZIP file of anything else than one file. Within the context as well.
    """
    with path.open("rb") as file:
        start = file.read(len(XZ))
    is_packed = start.startswith((GZIP, BZIP2, XZ, ZSTD, ZIP))
    try:
        with _opened(path, start, subject) as stream:
            yield stream
    except DAMAGED as error:
        if not is_packed:
            raise
        raise DataError(
            f"{subject}: {path} ({path.stat().st_size} bytes) cannot be unpacked: {' '.join(str(error).split())}. "
            "Pack or download it again, or unpack it yourself"
        ) from error


@contextmanager
def _opened(path: Path, start: bytes, subject: str) -> Iterator[IO[bytes]]:
    if start.startswith(ZIP):
        with zipfile.ZipFile(path) as archive, archive.open(_only_member(archive, path, subject)) as member:
            yield member
        return
    with _stream(path, start) as stream:
        yield stream


def _stream(path: Path, start: bytes) -> IO[bytes]:
    if start.startswith(ZSTD):
        import pyarrow as pa

        return cast("IO[bytes]", pa.input_stream(str(path), compression="zstd"))
    openers: dict[bytes, Any] = {GZIP: gzip.open, BZIP2: bz2.open, XZ: lzma.open}
    opener = next((opener for signature, opener in openers.items() if start.startswith(signature)), Path.open)
    return cast("IO[bytes]", opener(path, "rb"))


def _only_member(archive: zipfile.ZipFile, path: Path, subject: str) -> str:
    # Some programs put their own notes beside the file.
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if "[Content_Types].xml" in names or "mimetype" in names:
        raise DataError(
            f"{subject}: {path} is a workbook or document; name it by what it is, for example xlsx://{path}"
        )
    if len(names) != 1:
        raise DataError(
            f"{subject}: {path} holds {len(names)} files ({', '.join(names[:5])}); unpack it, and name the files by a "
            "pattern such as folder/*.csv"
        )
    return names[0]
