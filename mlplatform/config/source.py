"""Where a dataset is read from, and under which names; the plug-in of the source checks the rest.

Not here: reading (`data.sources`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from mlplatform.config.base import Frozen
from mlplatform.plugins import SOURCES

# A user and password before the host, or a query parameter that is called like a secret.
CREDENTIALS_IN_URI = re.compile(
    r"://[^@]*:[^@]*@|[?&][^=&]*(password|passwd|pwd|secret|token|credential)[^=&]*=", re.IGNORECASE
)

# Endings of compressed files, which stand after that of what they hold.
COMPRESSED = ("gz", "bz2", "xz", "zst", "zip")


class SourceConfig(Frozen):
    """Where a dataset is read from; the URI's scheme or file suffix selects the source plug-in.

    A list in the place of `uri` names files of one table: the first is kept as `uri`, the others as `more`. `rename`
    gives columns of the source the names that the dataset has for them.
    """

    uri: str
    more: tuple[str, ...] = Field(default=(), exclude_if=lambda uris: not uris)
    rename: dict[str, str] = Field(default_factory=dict, exclude_if=lambda names: not names)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    download_url: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _spread_list(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or not isinstance(values.get("uri"), list | tuple):
            return values
        if not values["uri"] or values.get("more"):
            raise ValueError("uri must name a file at least, and a list of files stands in uri alone, without more")
        first, *more = values["uri"]
        return {**values, "uri": first, "more": more}

    @model_validator(mode="after")
    def _digest_is_of_one_file(self) -> SourceConfig:
        if self.more and self.sha256 is not None:
            raise ValueError("sha256 is the digest of one file, but uri lists several; remove it")
        twice = sorted({new for new in self.rename.values() if list(self.rename.values()).count(new) > 1})
        if twice:
            raise ValueError(f"rename gives more than one column the name {', '.join(map(repr, twice))}")
        return self

    @property
    def uris(self) -> tuple[str, ...]:
        """What `uri` names: one URI, or the files of a list."""
        return (self.uri, *self.more)

    @model_validator(mode="after")
    def _downloads_are_checked(self) -> SourceConfig:
        if self.download_url and not self.sha256:
            raise ValueError("a source with download_url needs sha256, so that the download can be checked")
        return self

    @model_validator(mode="after")
    def _holds_no_credentials(self) -> SourceConfig:
        named = {"uri": " ".join(self.uris), "download_url": self.download_url or ""}
        for key, text in named.items():
            if CREDENTIALS_IN_URI.search(text):
                raise ValueError(
                    f"{key} holds credentials (it is not repeated here); leave them out, set them as environment "
                    "variables and name those in source.options, for example user_env and password_env"
                )
        return self


def source_scheme(uri: str) -> str:
    """Return the name of the plug-in for a URI: its scheme, or the lower-case file suffix of a path.

    A scheme that no plug-in has, such as `s3`, is an address of files, whose suffix decides if a plug-in reads it. So
    does the suffix before that of a compressed file: `csv` for `readings.csv.gz`.
    """
    scheme, separator, path = uri.partition("://")
    suffixes = [suffix.lower().lstrip(".") for suffix in Path(path if separator else uri).suffixes]
    suffix = suffixes[-1] if suffixes else ""
    if suffix in COMPRESSED and len(suffixes) > 1 and suffixes[-2] in SOURCES.names():
        suffix = suffixes[-2]
    if not separator:
        return suffix
    return suffix if scheme not in SOURCES.names() and suffix in SOURCES.names() else scheme


def refuse_renames(source: SourceConfig, ours: Collection[str]) -> None:
    """Refuse new names that a dataset does not have, and columns of the source that it would read under two names.

    Parameters:
        ours: names of all columns of the dataset.

    Raises:
        ValueError: with the names.
    """
    unknown = [name for name in source.rename.values() if name not in ours]
    if unknown:
        raise ValueError(
            f"source.rename gives columns the names {', '.join(map(repr, unknown))}, which the dataset does not have; "
            "it is written as {name in the source: name in the dataset}, and the dataset's time_column, entity_column, "
            "removed_column and columns use the latter"
        )
    given = source.rename.values()
    twice = sorted(name for name in ours if name in source.rename and name not in given)
    if twice:
        raise ValueError(
            f"source.rename calls the source's {', '.join(map(repr, twice))} by another name, so the dataset has no "
            "column of that name; remove it from the dataset, or from source.rename"
        )
