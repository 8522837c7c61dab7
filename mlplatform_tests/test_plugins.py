"""Registries: discovery by file, refusal of duplicates, and errors that list what there is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mlplatform.plugins import (
    DRIFT_TESTS,
    METRICS,
    MODELS,
    RETRIEVALS,
    SOURCES,
    SPLITTERS,
    TRANSFORMS,
    Registry,
    UnknownPluginError,
)

ALL = [DRIFT_TESTS, METRICS, MODELS, RETRIEVALS, SOURCES, SPLITTERS, TRANSFORMS]


@pytest.mark.parametrize("registry", ALL, ids=lambda registry: registry.kind)
def test_every_kind_finds_its_plugins(registry: Registry[object]) -> None:
    names = registry.names()
    assert names
    assert names == tuple(sorted(names))
    assert [name for name, _ in registry] == list(names)


@pytest.mark.parametrize("registry", ALL, ids=lambda registry: registry.kind)
def test_an_unknown_name_is_refused_with_the_known_ones(registry: Registry[object]) -> None:
    with pytest.raises(UnknownPluginError, match=f"unknown {registry.kind} 'nothing'; known: ") as error:
        registry.get("nothing")
    assert all(name in str(error.value) for name in registry.names())


def test_a_new_file_adds_its_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "shapes_for_test"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from mlplatform.plugins import Registry\nSHAPES = Registry('shape', __name__)\n"
    )
    (package / "circle.py").write_text(
        "from shapes_for_test import SHAPES\n\n\n@SHAPES.register('circle')\nclass Circle:\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import shapes_for_test  # type: ignore[import-not-found]

    assert "shapes_for_test.circle" not in sys.modules
    assert shapes_for_test.SHAPES.names() == ("circle",)
    assert shapes_for_test.SHAPES.get("circle").__name__ == "Circle"


def test_a_name_is_taken_once() -> None:
    registry: Registry[type] = Registry("shape", "mlplatform_tests")
    registry.register("round")(int)
    registry.register("round")(int)  # the same plug-in again, as a reloaded module does
    with pytest.raises(ValueError, match="shape 'round' is registered twice"):
        registry.register("round")(str)
