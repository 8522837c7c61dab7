"""The structure that docs/architecture.md draws, kept: layers, faces, no circles, and what may load what."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

from mlplatform_tests.architecture.imports import Import, Tree, circle, parsed

ROOT = Path(__file__).resolve().parents[2]

# From the top floor down: a room may import rooms below it, never one above. Rooms in one tuple stand side by side and
# do not know each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("mlplatform.testing",),
    ("mlplatform.definitions",),
    (
        "mlplatform.defs",
        "mlplatform.demo",
        "mlplatform.demo_drift",
        "mlplatform.streaming",
        "mlplatform.cli",
        "serving",
    ),
    ("mlplatform.api",),
    ("mlplatform.promotion", "mlplatform.monitoring", "mlplatform.alerts"),
    ("mlplatform.forecasts",),
    ("mlplatform.registry",),
    ("mlplatform.candidates",),
    ("mlplatform.tuning",),
    ("mlplatform.training", "mlplatform.features"),
    ("mlplatform.data", "mlplatform.preprocessing", "mlplatform.models"),
    ("mlplatform.datamodule",),
    ("mlplatform.snapshots",),
    ("mlplatform.config",),
    ("mlplatform.plugins",),
    (
        "mlplatform.calendars",
        "mlplatform.child_processes",
        "mlplatform.cores",
        "mlplatform.locks",
        "mlplatform.settings",
        "mlplatform.state_files",
        "mlplatform.storage",
        "mlplatform.plugin_kinds",
        "mlplatform.figures",
        "mlplatform.html_pages",
        "mlplatform.feast_import",
    ),
)
# The same inside rooms. What a room's modules share stands at its bottom.
INNER_LAYERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "mlplatform.features": (
        ("retrieval",),
        ("online",),
        ("feast",),
        ("tables",),
        ("time_point",),
        ("retry",),
        ("errors",),
    ),
    "mlplatform.models": (
        ("families",),
        ("trees", "networks"),
        ("forecasting",),
        ("base",),
        ("calibration", "sample_cache"),
    ),
    "mlplatform.registry": (
        ("runs",),
        ("pairs",),
        ("tables",),
        ("digests",),
        ("forecaster", "tracking", "signing"),
    ),
    "mlplatform.tuning": (("tuner",), ("executors",), ("search",), ("choice", "limits"), ("study",), ("trials",)),
}
# Subclasses of a library's classes cannot be declared without it. These modules are imported by name where they are
# needed, by the library itself or inside functions.
HEAVY = {"torch", "ray", "mlflow", "feast", "xgboost", "catboost", "optuna", "sklearn", "scipy", "matplotlib", "dvc",
         "hydra", "duckdb", "pandera", "fsspec", "sqlalchemy", "model_signing", "sigstore"}  # fmt: skip
MAY_LOAD = {
    "mlplatform.features.asof": "feast",
    "mlplatform.features.asof_store": "feast",
    "mlplatform.features.feast.registry_store": "feast",
    "mlplatform.features.registry_store": "feast",
    "mlplatform.features.online.redis_store": "feast",
    "mlplatform.features.online.sqlite_store": "feast",
    "mlplatform.features.sqlite_store": "feast",
    "mlplatform.models.networks.modules": "torch",
    "mlplatform.registry.pyfunc_code": "mlflow",
    "mlplatform.tuning.study.journal": "optuna",
    "mlplatform.tuning.study.pruner": "optuna",
    "mlplatform.tuning.study.sampler": "optuna",
}  # fmt: skip
# Paths that stand in files of users and in stored pairs.
FORWARDING = {
    f"mlplatform.features.{name}" for name in ("asof_store", "sqlite_store", "registry_store", "definitions", "table")
}
IMPORTS_DAGSTER = ("mlplatform.defs", "mlplatform.definitions", "mlplatform.testing")
NOT_FOR_SERVING = ("mlplatform.training", "mlplatform.tuning", "mlplatform.candidates", "mlplatform.promotion")


@pytest.fixture(scope="module")
def tree() -> Tree:
    """The project's code."""
    return Tree(ROOT, "mlplatform", "serving")


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A copy of the project's code to plant violations in."""
    for package in ("mlplatform", "serving"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "conf"))
    return tmp_path


def is_in(module: str, *packages: str) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


def upward_imports(graph: grimp.ImportGraph) -> list[str]:
    """Return every chain of imports that runs up, or across to a neighbour."""
    floors = [LAYERS]
    floors += [
        tuple(tuple(f"{room}.{name}" for name in layer) for layer in inner) for room, inner in INNER_LAYERS.items()
    ]
    found = []
    for layers in floors:
        illegal = graph.find_illegal_dependencies_for_layers(layers=[grimp.Layer(*layer) for layer in layers])
        for dependency in illegal:
            for route in dependency.routes:
                found.append(" -> ".join([min(route.heads), *route.middle, min(route.tails)]))
    return found


def behind_faces(tree: Tree) -> list[str]:
    """Return imports that reach past the face of a package they are not in."""
    return [f"{found.where}: {found.written}" for found in tree.imports() if _reaches_behind(found, tree)]


def _reaches_behind(found: Import, tree: Tree) -> bool:
    if found.written in tree.packages or found.written not in tree.modules:
        return False
    package = found.written.rpartition(".")[0]
    # `mlplatform` itself is no room, and fault injection has to reach into what it breaks.
    if package == "mlplatform" or is_in(found.importer, package, "mlplatform.testing"):
        return False
    return found.importer not in FORWARDING


def loads_when_imported(tree: Tree) -> Iterator[str]:
    """Yield modules that load a heavy library when they are imported, straight or through others, and must not."""
    eager = [found for found in tree.imports() if found.is_eager]
    straight = {(found.importer, library) for found in eager if (library := found.target.split(".")[0]) in HEAVY}
    reached, before = straight, set[tuple[str, str]]()
    while reached != before:
        before = reached
        libraries: dict[str, set[str]] = {}
        for module, library in reached:
            libraries.setdefault(module, set()).add(library)
        reached = before | {(found.importer, library) for found in eager for library in libraries.get(found.target, ())}
    for module, library in sorted(reached):
        is_meant = any(is_in(module, room) and library == allowed for room, allowed in MAY_LOAD.items())
        # Its fault injection wraps MLflow's stores before anything else does.
        if not is_meant and module != "mlplatform.testing.registry_faults":
            yield f"{module}: {library}"


def test_imports_run_down(tree: Tree) -> None:
    assert upward_imports(tree.graph()) == []


def test_every_top_level_module_has_its_floor(tree: Tree) -> None:
    known = {room for layer in LAYERS for room in layer}
    found = {".".join(name.split(".")[:2]) for name in tree.modules if name.startswith("mlplatform.")}
    assert found - known == set()


def test_the_page_draws_every_room_and_only_arrows_that_exist(tree: Tree) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    picture = page.partition("```mermaid")[2].partition("```")[0]
    graph, drawn = tree.graph(), set[str]()
    for line in filter(lambda line: "-->" in line, picture.splitlines()):
        start, _, ends = re.sub(r'\["[^]]*"\]', "", line).partition("-->")
        for end in ends.split("&"):
            above, below = _members(start.strip()), _members(end.strip())
            drawn |= {*above, *below}
            chains = (
                graph.find_shortest_chains(importer=a, imported=b, as_packages=True) for a in above for b in below
            )
            assert any(len(chain) == 2 for found in chains for chain in found), (
                f"{line.strip()}: there is no such import"
            )
    rooms = {room for layer in LAYERS for room in layer}
    assert drawn == rooms


def _members(name: str) -> tuple[str, ...]:
    """Return the rooms that a box of the picture stands for."""
    boxes = {
        "ground": (*LAYERS[-2], *LAYERS[-1]),
        "programs": ("mlplatform.demo", "mlplatform.demo_drift", "mlplatform.streaming"),
        "serving": ("serving",),
    }
    return boxes.get(name, (f"mlplatform.{name}",))


def test_no_modules_import_each_other_in_a_circle(tree: Tree) -> None:
    assert circle(tree.graph()) == []


def test_packages_are_entered_by_their_faces(tree: Tree) -> None:
    assert behind_faces(tree) == []


def test_faces_show_what_is_there(tree: Tree) -> None:
    for package, names in tree.faces.items():
        for name, module in names.items():
            assert name in tree.faces.get(module, ()) or name in _defined(tree.modules[module]), (
                f"{package} shows {name} of {module}, which does not define it"
            )


def _defined(path: Path) -> set[str]:
    """Return the names that a module itself defines, not those that it imports."""
    found = set()
    for node in parsed(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        else:
            found |= {
                inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
            }
    return found


def test_packages_say_what_belongs_there_and_what_not(tree: Tree) -> None:
    for package in tree.packages - {"mlplatform"}:
        text = ast.get_docstring(parsed(tree.modules[package].read_text())) or ""
        assert "Here:" in text, package
        assert "Not here:" in text, package


def test_only_the_dagster_layer_imports_dagster(tree: Tree) -> None:
    found = [i.where for i in tree.imports() if is_in(i.written, "dagster", "dagster_mlflow")]
    assert [where for where in found if not is_in(where.split(".py")[0].replace("/", "."), *IMPORTS_DAGSTER)] == []


def test_serving_reaches_nothing_that_fits_or_promotes(tree: Tree) -> None:
    graph = tree.graph()
    for module in graph.find_descendants("serving"):
        for room in NOT_FOR_SERVING:
            for inner in (room, *graph.find_descendants(room)):
                assert not graph.chain_exists(importer=module, imported=inner), f"{module} reaches {inner}"


def test_nothing_but_tests_imports_or_starts_tests() -> None:
    for folder in ("benchmarks", "mlplatform", "serving", "feature_repo"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not re.search(r"(import|from|-m\W+)\s*mlplatform_tests", path.read_text()), path


def test_nothing_but_tests_and_benchmarks_imports_what_they_share(tree: Tree) -> None:
    users = [i.where for i in tree.imports() if is_in(i.target, "mlplatform.testing")]
    assert [where for where in users if not where.startswith("mlplatform/testing/")] == []


def test_heavy_libraries_wait_until_they_are_used(tree: Tree) -> None:
    assert list(loads_when_imported(tree)) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("mlplatform/datamodule/panel.py", "from mlplatform.promotion import run_gate"),
        ("mlplatform/training/metrics.py", "from mlplatform.tuning import tune"),
        ("mlplatform/features/tables/grid.py", "from mlplatform.features.online import push_rows"),
        ("mlplatform/plugins.py", "from mlplatform.models import Model"),
    ],
)
def test_a_planted_arrow_up_is_found(planted: Path, module: str, line: str) -> None:
    path = planted / module
    # Inside a function, where it would do no harm today: an arrow counts all the same.
    path.write_text(f"{path.read_text()}\n\ndef planted() -> None:\n    {line}\n")
    found = upward_imports(Tree(planted, "mlplatform", "serving").graph())
    assert any(chain.startswith(module.removesuffix(".py").replace("/", ".")) for chain in found)


def test_a_planted_circle_is_found(planted: Path) -> None:
    path = planted / "mlplatform" / "registry" / "digests.py"
    path.write_text(
        f"{path.read_text()}\n\ndef planted() -> None:\n    from mlplatform.registry.pairs import PairStore\n"
    )
    assert "mlplatform.registry.digests" in circle(Tree(planted, "mlplatform", "serving").graph())


def test_a_planted_short_cut_behind_a_face_is_found(planted: Path) -> None:
    path = planted / "serving" / "bundle.py"
    path.write_text(f"{path.read_text()}\nfrom mlplatform.registry.pairs.store import PairStore\n")
    assert [found.rpartition(": ")[2] for found in behind_faces(Tree(planted, "mlplatform", "serving"))] == [
        "mlplatform.registry.pairs.store"
    ]


def test_a_planted_heavy_import_is_found_through_others(planted: Path) -> None:
    path = planted / "mlplatform" / "training" / "schedules.py"
    path.write_text(f"import torch\n{path.read_text()}")
    found = list(loads_when_imported(Tree(planted, "mlplatform", "serving")))
    assert "mlplatform.training.schedules: torch" in found
    assert "mlplatform.training.dl_trainer: torch" in found
