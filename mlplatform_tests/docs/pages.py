"""The pages of the documentation, read as what they are made of: headings, links, blocks of code."""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
SHELLS = ("bash", "sh", "shell")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: the word behind the fence; empty without one.
        line: of its first line, from 1.
    """

    page: Path
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """Where it stands."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@functools.cache
def tokens(page: Path) -> tuple[Token, ...]:
    """Return what Markdown makes of a page."""
    return tuple(MarkdownIt("commonmark").enable("table").parse(page.read_text()))


def blocks(*languages: str) -> list[Block]:
    """Return all blocks in these languages."""
    return [block for page in PAGES for block in _blocks(page) if block.language in languages]


def shell_blocks() -> list[Block]:
    """Return all blocks for a shell: those that say so, and those without a language that begin with a command."""
    begins = re.compile(r"^(?:[A-Z_]+=\S+ )*(?:mlplatform|make|python|dagster|dg|pip|curl|export|source|openssl|ray)\b")
    return [
        block
        for page in PAGES
        for block in _blocks(page)
        if block.language in SHELLS or (not block.language and begins.match(block.text))
    ]


def _blocks(page: Path) -> Iterator[Block]:
    for token in tokens(page):
        if token.type == "fence":
            assert token.map is not None
            yield Block(page, token.map[0] + 2, token.info.split(" ")[0], token.content)


def _inline(page: Path) -> Iterator[Token]:
    for token in tokens(page):
        yield from token.children or ()


def links(page: Path) -> list[str]:
    """Return where the links and pictures of a page lead."""
    return [
        str(token.attrs["href" if token.type == "link_open" else "src"])
        for token in _inline(page)
        if token.type in ("link_open", "image")
    ]


def inline_code(page: Path) -> list[str]:
    """Return the words of a page that are set as code."""
    return [token.content for token in _inline(page) if token.type == "code_inline"]


@functools.cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    seen: Counter[str] = Counter()
    found = set()
    for token, content in itertools.pairwise(tokens(page)):
        if token.type == "heading_open":
            words = "".join(child.content for child in content.children or () if child.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
            found.add(slug if not seen[slug] else f"{slug}-{seen[slug]}")
            seen[slug] += 1
    return frozenset(found)
