"""Names of columns that a dataset can have, in the place of those of a file where it could not."""

from __future__ import annotations

from collections.abc import Sequence

from mlplatform.config import RESERVED_NAMES

LONGEST = 100


def clean_names(names: Sequence[str]) -> dict[str, str]:
    """Return new names for those that need one: reserved, blank at the ends, of several lines, too long, or twins.

    Parameters:
        names: each once.
    """
    taken: set[str] = set()
    renamed = {}
    for name in names:
        clean = "".join(letter if letter.isprintable() else " " for letter in name)
        clean = " ".join(clean.split())[:LONGEST].strip() or "column"
        if clean.lower() in RESERVED_NAMES:
            clean += "_in_file"
        stem, count = clean, 1
        while clean.lower() in taken:
            count += 1
            clean = f"{stem}_{count}"
        taken.add(clean.lower())
        if clean != name:
            renamed[name] = clean
    return renamed
