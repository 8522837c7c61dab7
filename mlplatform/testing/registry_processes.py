"""Writers and readers of one registry in processes of their own, for the tests and for the benchmark."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlplatform.datamodule.panel import Panel
from mlplatform.registry.pairs import ROLES, PairIntegrityError, PairNotFoundError, PairStore
from mlplatform.settings import Settings
from mlplatform.testing.forks import Fork
from mlplatform.testing.tiny_pair import COLUMNS, NAME, TinyRegistry, tiny_forecaster, tiny_rows

FAMILY = "ridge"


@dataclass(frozen=True)
class Worker:
    """A running process of this module."""

    process: Fork

    @classmethod
    def start(cls, task: Callable[..., dict[str, Any]], *arguments: object) -> Worker:
        """Start one that does a task of this module."""
        return cls(Fork(_report, task, *arguments))

    def result(self) -> dict[str, Any]:
        """Wait for the end and return what it found."""
        if status := self.process.wait():
            raise RuntimeError(f"the process ended with status {status}: {self.process.stderr}")
        answer: dict[str, Any] = json.loads(self.process.stdout.splitlines()[-1])
        return answer


def side_by_side(settings: Settings, rounds: int) -> dict[str, Any]:
    """Register pairs from two processes at once, and return what came of it.

    Returns:
        `registered`: version numbers as each process got them; `complete`: versions that verify; `incomplete`: versions
        marked so; `numbers`: last version per role; `seconds`.
    """
    run_id = TinyRegistry.create(settings).run_id
    go = settings.home / "go"
    workers = [Worker.start(register, settings, run_id, rounds, go) for _ in range(2)]
    started = time.perf_counter()
    go.touch()
    registered = [worker.result()["versions"] for worker in workers]
    seconds = time.perf_counter() - started
    store = PairStore(settings)
    versions = {
        role: {int(found.version): found.tags for found in store.client.search_model_versions(f"name='{NAME}_{role}'")}
        for role in ROLES
    }
    complete = []
    for number in versions["model"]:
        if (pair := store.find(NAME, number)) is not None:
            store.verify(pair)
            complete.append(number)
    return {
        "registered": registered,
        "complete": sorted(complete),
        "incomplete": sum(tags.get("incomplete") == "true" for found in versions.values() for tags in found.values()),
        "numbers": {role: max(found) for role, found in versions.items()},
        "seconds": seconds,
    }


def flips(settings: Settings, count: int) -> dict[str, Any]:
    """Move `production` back and forth between two pairs while another process reads; return what it saw."""
    registry = TinyRegistry.create(settings)
    for rows in (0, 6):
        registry.register(tiny_forecaster(family=FAMILY, first_row=rows), FAMILY)
    store = registry.store
    store.promote(NAME, 1, "test", "a start")
    stop, ready = settings.home / "stop", settings.home / "ready"
    reader = Worker.start(read, settings, ready, stop)
    try:
        while not ready.exists() and reader.process.poll() is None:
            time.sleep(0.05)
        started = time.perf_counter()
        for turn in range(count):
            store.promote(NAME, 2 - turn % 2, "test", "a flip")
        seconds = time.perf_counter() - started
    finally:
        stop.touch()
    return {**reader.result(), "seconds": seconds, "flips": count}


def register(settings: Settings, run_id: str, rounds: int, go: Path) -> dict[str, Any]:
    """Register as many pairs as asked, once told to go."""
    registry = TinyRegistry(settings, run_id)
    forecaster = tiny_forecaster(family=FAMILY)
    while not go.exists():
        time.sleep(0.01)
    return {"versions": [registry.register(forecaster, FAMILY).version for _ in range(rounds)]}


def read(settings: Settings, ready: Path, stop: Path) -> dict[str, Any]:
    """Resolve, load and predict until told to stop; count the answers that are neither pair's."""
    store = PairStore(settings)
    panel = Panel.from_frame(tiny_rows(), COLUMNS)
    answers = {number: store.load(store.resolve(NAME, number)).predict(panel) for number in (1, 2)}
    assert not np.array_equal(answers[1], answers[2])
    reads, mixed, changes, last = 0, 0, 0, 0
    ready.touch()
    while not stop.exists():
        try:
            info = store.resolve(NAME)
            is_whole = np.array_equal(store.load(info).predict(panel), answers[info.version])
            changes += info.version != last
            last = info.version
        except (PairIntegrityError, PairNotFoundError, ValueError):
            is_whole = False
        reads += 1
        mixed += not is_whole
    return {"reads": reads, "mixed": mixed, "changes_seen": changes}


def _report(task: Callable[..., dict[str, Any]], *arguments: object) -> None:
    sys.stdout.write(f"{json.dumps(task(*arguments))}\n")
