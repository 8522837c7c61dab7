"""Ends a process after each single write of a change to the registry, and looks at what is left.

A write is whatever can be seen from outside the process: a call of any method of `MlflowClient` that changes something
(found by its name, so that a new one is not forgotten), a commit of the database below it, and a file or folder that is
written, moved or deleted in the state folder. A clean run counts them and takes down the state of the model registry's
tables after each. Then processes die, by `os._exit`, right after a write; another one reads what is left as any reader
would, lets the next run heal it, and looks again.

`Plan.every` kills after every single write. `Plan.distinct` leaves out those after which the tables are, to the last
bit, as they were after the write before, except for every tenth: readers and the next run cannot tell them apart.

Run as `python -m mlplatform.testing.registry_faults <folder> <plan> <change...>`; prints one JSON object per change.
All processes are forks of one that has done everything once, so that nothing is imported or compiled again: for MLflow
they all have the same database, and each connects to the file of that name in the folder it works in.
"""

from __future__ import annotations

import enum
import gc
import hashlib
import json
import os
import shutil
import sqlite3
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock
from weakref import WeakSet

import mlflow.pyfunc
import mlflow.store.db.utils
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store
import pyarrow.parquet  # noqa: F401 - imported once for all processes
from mlflow import MlflowClient
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from mlplatform.registry.pairs import ROLES, PairStore, store
from mlplatform.registry.pairs.artifacts import Logged, log_roles
from mlplatform.registry.pairs.lock import PREFIX as WRITERS
from mlplatform.settings import Settings
from mlplatform.testing.tiny_pair import NAME, TinyRegistry, tiny_forecaster

# Fork and the threads of OpenMP do not go together; a ridge is solved without.
FAMILY = "ridge"
KILLED = 9
WORKERS = 2
MUTATING = (
    "create_",
    "set_",
    "delete_",
    "update_",
    "log_",
    "rename_",
    "finalize_",
    "transition_",
    "link_",
    "copy_",
    "restore_",
)
FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
TABLES = (
    "registered_models",
    "model_versions",
    "model_version_tags",
    "registered_model_tags",
    "registered_model_aliases",
)
LOGGED, DATABASE = "logged.json", "mlflow.db"
ENGINES: set[Engine] = set()


class Plan(enum.StrEnum):
    """After which writes processes die."""

    every = "every"
    distinct = "distinct"


@dataclass(frozen=True)
class Scenario:
    """A change to the registry that is cut off.

    Attributes:
        run: the change; gets the registry, and the folder of the one it was copied from.
        promotions: how many of the two pairs were put into production before.
        allowed: (production, previous) as readers may find them afterwards.
    """

    run: Callable[[TinyRegistry, Path], Any]
    promotions: int
    allowed: frozenset[tuple[int, int | None]]


def register(registry: TinyRegistry, _base: Path) -> int:
    """Register a third pair, artifacts and all."""
    return registry.register(tiny_forecaster(family=FAMILY), FAMILY).version


def commit(registry: TinyRegistry, base: Path) -> int:
    """Register a third pair whose artifacts are stored already."""
    logged = {role: Logged(**values) for role, values in json.loads((base.parent / LOGGED).read_text()).items()}
    mock.patch.object(store, "log_roles", return_value=logged).start()
    return register(registry, base)


def promote(registry: TinyRegistry, _base: Path) -> None:
    """Put the second pair into production."""
    registry.store.promote(NAME, 2, "test", "it is better")


def rollback(registry: TinyRegistry, _base: Path) -> None:
    """Put the first pair back into production."""
    registry.store.rollback(NAME, who="test", why="it is worse")


SCENARIOS = {
    "register": Scenario(register, 1, frozenset({(1, None)})),
    "commit": Scenario(commit, 1, frozenset({(1, None)})),
    "promote": Scenario(promote, 1, frozenset({(1, None), (2, 1)})),
    "rollback": Scenario(rollback, 2, frozenset({(2, 1), (1, 2)})),
}


class Steps:
    """Counts the writes of this process and, if asked to, ends it right after one of them.

    Parameters:
        root: folder with everything whose files count.
        last: the write to end after.
    """

    def __init__(self, root: Path, last: int | None = None) -> None:
        self.names: list[str] = []
        # Called between two writes, with the database as a process that ends here leaves it.
        self.look: Callable[[], object] = lambda: None
        self.is_on = True
        self._root, self._last = str(root), last
        # The connections themselves: the id of one that is gone is soon that of another, which may only read.
        self._writing: WeakSet[Connection] = WeakSet()
        for name in dir(MlflowClient):
            if name.startswith(MUTATING):
                self._wrap(name)
        event.listen(Engine, "before_cursor_execute", self._statement)
        event.listen(Engine, "commit", self._commit)
        event.listen(Engine, "rollback", self._rollback)
        sys.addaudithook(self._audit)

    def _wrap(self, name: str) -> None:
        method = getattr(MlflowClient, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            answer = method(*args, **kwargs)
            self._begin("")
            self._begin(name)
            return answer

        setattr(MlflowClient, name, wrapped)

    def _statement(self, connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE")):
            self._writing.add(connection)

    def _commit(self, connection: Connection) -> None:
        # MLflow commits after reading, too.
        if connection in self._writing:
            self._writing.discard(connection)
            self._begin("commit")

    def _rollback(self, connection: Connection) -> None:
        # A model that is there already is found by an insert that fails.
        self._writing.discard(connection)

    def _audit(self, what: str, args: tuple[Any, ...]) -> None:
        if not self.is_on or what not in FILE_EVENTS:
            return
        if what == "open" and not (isinstance(args[1], str) and set(args[1]) & set("wax+")):
            return
        paths = [str(path) for path in args[:2] if isinstance(path, str | os.PathLike)]
        if any(path.startswith(self._root) for path in paths):
            self._begin(f"{what} {Path(paths[0]).name}")

    def _begin(self, name: str) -> None:
        """Note that a write begins, so that the one before is over; an empty name only ends the one before."""
        if not self.is_on:
            return
        self.look()
        if self._last is not None and len(self.names) >= self._last:
            os._exit(KILLED)
        if name:
            self.names.append(name)


def in_child(work: Callable[[], Any]) -> tuple[int, Any]:
    """Run something in a forked process; return its exit status, and its answer as JSON carries it."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        status = 0
        try:
            answer = work()
        except BaseException:
            status, answer = 1, traceback.format_exc()
        with os.fdopen(writer, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), json.loads(text) if text else None


def settings_for(folder: Path) -> Settings:
    """Work in a folder from now on, and return the settings for it."""
    _disconnect()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    return Settings.from_env({"MLPLATFORM_HOME": str(folder), "MLFLOW_TRACKING_URI": f"sqlite:///{DATABASE}"})


def prepare(folder: Path) -> tuple[dict[int, Path], str]:
    """Make two registries with two complete pairs, after one and after two promotions; return them and a run id.

    A third pair's artifacts are stored, and everything that readers and the next run do was done once.
    """
    base = folder / "base_1"
    registry = TinyRegistry.create(settings_for(base))
    kept: dict[str, Logged] = {}

    def keep(*args: Any) -> dict[str, Logged]:
        kept.update(log_roles(*args))
        return kept

    with mock.patch.object(store, "log_roles", keep):
        for rows in (6, 0):
            registry.register(tiny_forecaster(family=FAMILY, first_row=rows), FAMILY)
    registry.store.promote(NAME, 1, "test", "a start")
    (folder / LOGGED).write_text(json.dumps({role: asdict(logged) for role, logged in kept.items()}))
    again = copy_of(base, folder / "base_2", registry.run_id)
    again.store.promote(NAME, 2, "test", "another start")
    check_reader(again.store, frozenset({(2, 1)}))
    again.store.repair(NAME)
    check_healed(folder / "base_2", 2)
    _disconnect()
    # The collector would otherwise touch, and so copy, all memory of every fork.
    gc.collect()
    gc.freeze()
    return {1: base, 2: folder / "base_2"}, registry.run_id


def copy_of(base: Path, folder: Path, run_id: str) -> TinyRegistry:
    """Return a registry with the database of another, and work in its folder; the artifacts stay where they are."""
    settings = settings_for(folder)
    shutil.copy(base / DATABASE, folder / DATABASE)
    return TinyRegistry(settings, run_id)


def state_of(folder: Path) -> str:
    """Return a digest of everything the model registry's tables hold."""
    digest = hashlib.sha256()
    with sqlite3.connect(folder / DATABASE) as connection:
        for table in TABLES:
            rows = connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - constants
            digest.update(repr(sorted(rows, key=repr)).encode())
    connection.close()
    return digest.hexdigest()


def check_reader(pairs: PairStore, allowed: frozenset[tuple[int, int | None]]) -> None:
    """Check that whatever a reader can resolve is a whole pair, and that the aliases tell one story."""
    complete = []
    for number in _numbers(pairs, "model"):
        pair = pairs.find(NAME, number)
        if pair is not None:
            # The two older pairs are complete in every case, and repairs verify those behind an alias.
            if number > 2:
                pairs.verify(pair)
            complete.append(number)
    assert pairs.resolve(NAME, "latest").version == max(complete)
    assert pairs.resolve(NAME, "staging").version in complete
    production, previous = pairs.resolve(NAME), pairs.find(NAME, "previous")
    assert pairs.reproduce_example(production) == []
    found = production.version, None if previous is None else previous.version
    assert found in allowed, found
    changes = [change for change in pairs.history(NAME) if change.alias == "production"]
    assert (changes[-1].to_version, changes[-1].from_version) == found
    assert all(change.who == "test" for change in changes)


def check_healed(folder: Path, newest: int) -> None:
    """Check that nothing is left of what was cut off: numbers, marks, aliases, histories and locks are in order."""
    with sqlite3.connect(folder / DATABASE) as connection:
        versions = connection.execute("SELECT name, version FROM model_versions").fetchall()
        tags = connection.execute("SELECT name, version, key, value FROM model_version_tags").fetchall()
        model_tags = connection.execute("SELECT key, value FROM registered_model_tags").fetchall()
        aliases = connection.execute("SELECT name, alias, version FROM registered_model_aliases").fetchall()
    connection.close()
    names = {f"{NAME}_{role}" for role in ROLES}
    assert sorted(versions) == sorted((name, number) for name in names for number in range(1, newest + 1))
    whole = {number for name, number, key, _ in tags if (name, key) == (f"{NAME}_model", "pair_id")}
    marked = {(name, number) for name, number, key, value in tags if (key, value) == ("incomplete", "true")}
    assert marked == {(name, number) for name, number in versions if number not in whole}
    stories = {name: {alias: number for owner, alias, number in aliases if owner == name} for name in names}
    assert len({json.dumps(story, sort_keys=True) for story in stories.values()}) == 1, stories
    assert stories[f"{NAME}_model"]["staging"] == max(whole)
    assert not any(key.startswith(WRITERS) for key, _ in model_tags)
    assert all(json.loads(text)["done"] for key, text in model_tags if key.startswith("alias_history."))


def heal(name: str, base: Path, registry: TinyRegistry, way: int) -> None:
    """Let the next run come: by turns a registration, a repair, and the change that was cut off again."""
    pairs = registry.store
    newest = max(_numbers(pairs, role)[-1] for role in ROLES)
    if way == 0:
        assert commit(registry, base) == newest + 1
        newest += 1
    elif way == 1 or name in ("register", "commit"):
        pairs.repair(NAME)
        report = pairs.repair(NAME)
        assert (report.repaired, report.damaged) == ((), ())
    else:
        target = {"promote": 2, "rollback": 1}[name]
        pairs.promote(NAME, target, "test", "the second time")
        assert pairs.resolve(NAME).version == target
    check_healed(registry.settings.home, newest)


def _numbers(pairs: PairStore, role: str) -> list[int]:
    found = pairs.client.search_model_versions(f"name='{NAME}_{role}'")
    return sorted(int(version.version) for version in found)


def clean(name: str, base: Path, folder: Path, run_id: str) -> tuple[list[str], list[str]]:
    """Return the names of all writes of a change, and the state of the tables before the first and after each."""
    registry = copy_of(base, folder, run_id)
    states: dict[int, str] = {}
    steps = Steps(folder.parent)
    steps.look = lambda: states.setdefault(len(steps.names), state_of(folder))
    SCENARIOS[name].run(registry, base)
    steps.is_on = False
    states[len(steps.names)] = state_of(folder)
    return steps.names, [states[number] for number in range(len(steps.names) + 1)]


def case(name: str, base: Path, folder: Path, run_id: str, number: int) -> None:
    """Kill one process after a write, look, heal and look again."""
    scenario = SCENARIOS[name]
    registry = copy_of(base, folder, run_id)

    def killed() -> None:
        Steps(folder.parent, number)
        scenario.run(registry, base)

    status, answer = in_child(killed)
    assert status == KILLED, (status, answer)
    check_reader(registry.store, scenario.allowed)
    heal(name, base, registry, number % 3)
    shutil.rmtree(folder)


def run(name: str, base: Path, run_id: str, plan: Plan) -> dict[str, Any]:
    """Cut one change off after its writes, and report."""
    folder = base.parent
    status, answer = in_child(lambda: clean(name, base, folder / f"clean_{name}", run_id))
    assert status == 0, answer
    names, states = answer
    # A process that ends after the last write has done its work, and is no case.
    chosen = [
        number
        for number in range(1, len(names))
        if plan == Plan.every or states[number] != states[number - 1] or number % 10 == 0
    ]

    def one(number: int) -> tuple[int, Any]:
        return in_child(lambda: case(name, base, folder / f"{name}_{number}", run_id, number))

    with ThreadPoolExecutor(WORKERS) as pool:
        ends = list(zip(chosen, pool.map(one, chosen), strict=True))
    return {
        "operation": name,
        "writes": len(names),
        "states": len(set(states)),
        "kills": len(chosen),
        "client_calls": [step for step in names if step.startswith(MUTATING)],
        "failures": [f"after write {number}, {names[number - 1]}: {end[1]}" for number, end in ends if end[0]],
    }


def _disconnect() -> None:
    """Close all connections: they lead to another folder's database, or into another process."""
    for engine in ENGINES:
        engine.dispose()


def _connect_here(_dialect: Any, _record: Any, arguments: list[Any], _options: Any) -> None:
    arguments[0] = str(Path.cwd() / DATABASE)


def main(arguments: Sequence[str]) -> None:
    """Run the scenarios that the command line names."""
    folder, plan, *names = arguments
    # Every database is a copy of one that was checked; MLflow would check the copies again in every process.
    mlflow.store.db.utils._verify_schema = lambda _: None
    event.listen(Engine, "do_connect", _connect_here)
    event.listen(Engine, "engine_connect", lambda connection: ENGINES.add(connection.engine))
    bases, run_id = prepare(Path(folder))
    for name in names:
        report = run(name, bases[SCENARIOS[name].promotions], run_id, Plan(plan))
        print(json.dumps(report), flush=True)  # noqa: T201 - the report


if __name__ == "__main__":
    main(sys.argv[1:])
