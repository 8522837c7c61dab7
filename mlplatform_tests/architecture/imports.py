"""The imports of a source tree, read as text: nothing of it is run.

A package's face hands names on from a stub, so the graph that tools build from the code alone ends at faces. Here
`from face import name` leads to the module behind the face that has the name. Imports inside functions and under
`TYPE_CHECKING` count like any others, unless asked for those that run when the module is imported.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grimp


@dataclass(frozen=True)
class Import:
    """One imported name.

    Attributes:
        importer: dotted name of the importing module.
        written: dotted module that the statement names.
        target: dotted module that is really needed: the one behind a face, or the submodule that is imported.
        name: the imported name; empty for `import module`.
        is_eager: whether it runs when the importer is imported.
        where: file and line.
    """

    importer: str
    written: str
    target: str
    name: str
    is_eager: bool
    where: str


class Tree:
    """Python packages below a folder.

    Attributes:
        modules: dotted name -> file; packages go by their own name.
        packages: those that are packages.
        faces: package -> public name -> module it is defined in, from the package's stub.
    """

    def __init__(self, root: Path, *packages: str) -> None:
        self.root = root
        files = [path for package in packages for path in sorted((root / package).rglob("*.py"))]
        self.modules = {_dotted(path.relative_to(root)): path for path in files}
        self.packages = {name for name, path in self.modules.items() if path.name == "__init__.py"}
        self.faces = {name: dict(_public(name, self.modules[name])) for name in self.packages}

    def imports(self) -> list[Import]:
        """Return every import of every module."""
        return [found for name, path in self.modules.items() for found in self._imports_of(name, path)]

    def graph(self) -> grimp.ImportGraph:
        """Return the graph of the modules of the tree."""
        graph = grimp.ImportGraph()
        for name in self.modules:
            graph.add_module(name)
        for found in self.imports():
            if found.target in self.modules and found.target != found.importer:
                graph.add_import(importer=found.importer, imported=found.target)
        return graph

    def _imports_of(self, importer: str, path: Path) -> Iterator[Import]:
        for node, is_eager in _statements(parsed(path.read_text()).body, is_eager=True):
            where = f"{path.relative_to(self.root)}:{node.lineno}"
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(importer, alias.name, alias.name, "", is_eager, where)
                continue
            written = _absolute(importer, importer in self.packages, node)
            for alias in node.names:
                submodule = f"{written}.{alias.name}"
                behind = self._behind(written, alias.name)
                target = behind or (submodule if submodule in self.modules else written)
                yield Import(
                    importer, written if target != submodule else submodule, target, alias.name, is_eager, where
                )

    def _behind(self, face: str, name: str) -> str | None:
        """Return the module that defines a public name of a package, however many faces it is handed on by."""
        module = self.faces.get(face, {}).get(name)
        return (self._behind(module, name) or module) if module else None


@functools.cache
def parsed(text: str) -> ast.Module:
    """Return the syntax tree of a module; most tests read the same ones."""
    return ast.parse(text)


def circle(graph: grimp.ImportGraph) -> list[str]:
    """Return modules that import each other in a circle, or nothing."""
    from graphlib import CycleError, TopologicalSorter

    arrows = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _public(package: str, path: Path) -> Iterator[tuple[str, str]]:
    """Yield the public names of a package and where they are defined: from its stub, or from its `__init__`."""
    stub = path.with_suffix(".pyi")
    for node in parsed((stub if stub.exists() else path).read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
            module = f"{package}.{node.module}" if node.level else node.module
            if module.startswith(f"{package}."):
                yield from ((alias.asname or alias.name, module) for alias in node.names)


def _absolute(importer: str, is_package: bool, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = importer.split(".")
    base = parts[: len(parts) - node.level + is_package]
    return ".".join([*base, *([node.module] if node.module else [])])


def _statements(body: list[ast.stmt], *, is_eager: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield the import statements of a block and of the blocks in it."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, is_eager
            continue
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        is_typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for part in ("body", "orelse", "finalbody"):
            inner = getattr(node, part, [])
            yield from _statements(inner, is_eager=is_eager and not is_function and not (is_typing and part == "body"))
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body, is_eager=is_eager)
        for case in getattr(node, "cases", []):
            yield from _statements(case.body, is_eager=is_eager)
