"""The notebook of the documentation, run from top to bottom by a kernel, as a reader would."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from mlplatform_tests.docs.pages import ROOT

NOTEBOOK = ROOT / "docs" / "notebooks" / "forecasts.ipynb"


@pytest.mark.integration
@pytest.mark.timeout(900)  # it trains twice
def test_the_notebook_runs_and_shows_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The notebook makes a folder of its own; here it is one that the test cleans up.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    texts = "".join(output.get("text", "") for output in shown if output.get("name") == "stdout")
    assert "version 1, promoted: True" in texts
    assert "version 2, promoted: " in texts
    assert any("image/png" in output.get("data", {}) for output in shown)


def test_the_committed_notebook_is_small_and_names_no_folder_of_its_author() -> None:
    text = NOTEBOOK.read_text()
    assert len(text) < 100_000
    for cell in nbformat.reads(text, as_version=4).cells:
        for output in cell.get("outputs", ()):
            words = {kind: text for kind, text in output.get("data", {}).items() if not kind.startswith("image/")}
            assert not re.search(r"/(tmp|home|Users)/", str(words))
            assert output.get("name") != "stderr"
