"""What MkDocs does not do by itself: pages that stand elsewhere, notebooks, and diagrams without a script.

README.md, CONTRIBUTING.md and CHANGELOG.md become pages, with their links made to fit; a notebook becomes a page beside
its file; a `mermaid` block becomes an SVG while the site is built, so that a mistake in it is an error and a page loads
nothing.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
# What mermaid gives every drawing; two on one page would take each other's styles.
DRAWING_ID = "my-svg"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Have `mermaid` blocks drawn."""
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [
        {"name": "mermaid", "class": "diagram", "format": draw}
    ]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are not Markdown below `docs`."""
    for name, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=fitted((ROOT / name).read_text())))
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            notebook = json.loads(Path(str(file.abs_src_path)).read_text())
            page = file.src_uri.removesuffix(".ipynb") + ".md"
            files.append(File.generated(config, page, content="\n\n".join(notebook_lines(notebook))))
    return files


def on_page_markdown(markdown: str, **_kwargs: Any) -> str:
    """Let links to files above `docs` lead to their pages."""
    for name, page in OUTSIDE.items():
        markdown = markdown.replace(f"](../{name}", f"]({page}")
    return markdown


def on_post_page(output: str, *, page: Page, **_kwargs: Any) -> str:
    """Refuse a page that loads something from another host.

    Raises:
        PluginError: naming page and address.
    """
    loaded = re.findall(r'<(?:script|img|link)\b[^>]*\b(?:src|href)="?((?:https?:)?//[^">\s]+)', output)
    if loaded:
        raise PluginError(f"{page.file.src_uri} loads {', '.join(loaded)}; bring that into docs, or leave it out")
    return output


def fitted(markdown: str) -> str:
    """Return a text of the folder above as one that stands in `docs`."""
    markdown = re.sub(r"(\]\(|src=\")docs/", r"\1", markdown)
    for name, page in OUTSIDE.items():
        markdown = markdown.replace(f"]({name}", f"]({page}")
    return markdown


def notebook_lines(notebook: dict[str, Any]) -> Iterator[str]:
    """Yield the parts of a page from a notebook of format 4: texts, code, and what the code showed."""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield source
        elif cell["cell_type"] == "code":
            yield f"```python\n{source}\n```"
            for output in cell["outputs"]:
                yield output_markdown(output)


def output_markdown(output: dict[str, Any]) -> str:
    """Return one output of a cell: a picture, a table, or plain text."""
    data = {kind: "".join(value) for kind, value in output.get("data", {}).items() if not isinstance(value, dict)}
    if "image/png" in data:
        return f'<img alt="what the cell above draws" src="data:image/png;base64,{data["image/png"].strip()}">'
    if "text/html" in data:
        # Markdown ends a block of HTML at an empty line.
        table = re.sub(r"\n\s*", " ", data["text/html"])
        return f'<div class="output">{table}</div>'
    text = data.get("text/plain") or "".join(output.get("text", ""))
    return f'<pre class="output">{html.escape(text)}</pre>'


def draw(source: str, _language: str, css_class: str, *_args: Any, **_kwargs: Any) -> str:
    """Return a Mermaid diagram as SVG.

    Raises:
        Exception: whatever mermaid says about a mistake in it; the build ends with it.
    """
    import mermaidx

    name = f"diagram-{hashlib.sha256(source.encode()).hexdigest()[:12]}"
    return f'<div class="{css_class}">{mermaidx.render(source).svg().replace(DRAWING_ID, name)}</div>'
