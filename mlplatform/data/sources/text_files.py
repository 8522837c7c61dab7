"""Files of text: in which encoding they are, their text, and its lines."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from mlplatform.data.errors import DataError
from mlplatform.data.sources.compression import open_unpacked

CHUNK = 1 << 20
# Tried in this order where no byte order mark tells; the last two tell every byte apart, but not each other.
ENCODINGS = ("utf-8", "cp1252", "latin-1")
MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# So much of the bytes at even or odd places are 0 where text of few foreign letters is in UTF-16.
ZEROS = 0.4


@contextmanager
def open_text(path: Path, encoding: str, subject: str) -> Iterator[TextIO]:
    """Open a file, unpacked if it is compressed, as text with its line ends as they are and without a byte order mark.

    Parameters:
        subject: what errors are about, for example a dataset.

    Raises:
        DataError: if the encoding is unknown, or the text is in another one. Within the context as well.
    """
    try:
        codec = codecs.lookup(encoding).name
        with open_unpacked(path, subject) as stream:
            yield io.TextIOWrapper(stream, encoding="utf-8-sig" if codec == "utf-8" else codec, newline="")
    except LookupError as error:
        if type(error) is not LookupError:
            raise
        raise DataError(f"{subject}: {error}; set source.options.encoding to one that Python knows") from error
    except UnicodeError as error:
        raise DataError(
            f"{subject}: {path} is not readable: its text cannot be decoded as {encoding} ({error}); set "
            f"source.options.encoding to the file's encoding, which seems to be {guess_encoding(path, subject)}"
        ) from error


def guess_encoding(path: Path, subject: str) -> str:
    """Return an encoding in which the whole text of a file can be read.

    Raises:
        DataError: if the file cannot be unpacked.
    """
    with open_unpacked(path, subject) as stream:
        start = stream.read(CHUNK)
    marked = next((encoding for mark, encoding in MARKS.items() if start.startswith(mark)), None)
    if marked is not None:
        return marked
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        every_other = start[first::2]
        if every_other and every_other.count(0) > ZEROS * len(every_other) and not start[1 - first :: 2].count(0):
            return encoding
    return next(encoding for encoding in ENCODINGS if _is_in(path, encoding, subject))


def _is_in(path: Path, encoding: str, subject: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    with open_unpacked(path, subject) as stream:
        try:
            while chunk := stream.read(CHUNK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def count_lines(text: TextIO) -> int:
    """Return the number of lines of the rest of a text, the last one with or without an end."""
    lines, last, before = 0, "\n", ""
    while chunk := text.read(CHUNK):
        # A line end of two characters may be cut in two.
        lines += chunk.count("\n") + chunk.count("\r") - chunk.count("\r\n") - (before == "\r" and chunk[0] == "\n")
        before = last = chunk[-1]
    return lines + (last not in "\r\n")
