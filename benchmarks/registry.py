"""The model registry under attack and on the clock.

Processes that die after every single write, registrations from two processes at once, a reader during 200 moves of the
alias, a flipped byte in every stored file, and what the platform's care costs beside MLflow alone, measured in the same
run on the same registry. Takes ten minutes on two cores. Run as `python benchmarks/registry.py [part...]`, the parts
being faults, together, flips, tampering and cost.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from figures import report

from mlplatform.registry.pairs import ROLES, PairIntegrityError, PairStore
from mlplatform.settings import PACKAGE_ROOT, Settings
from mlplatform.testing import NAME, TinyRegistry, flips, side_by_side, tiny_forecaster

BENCHMARK = "registry"
ROUNDS, FLIPS, REPEATS = 20, 200, 20


def main() -> None:
    """Run the parts that the command line names, by default all."""
    parts: dict[str, Callable[[Settings], None]] = {
        "faults": faults,
        "together": together,
        "flips": moving_alias,
        "tampering": tampering,
        "cost": cost,
    }
    for name in sys.argv[1:] or parts:
        with tempfile.TemporaryDirectory() as folder:
            parts[name](Settings.from_env({"MLPLATFORM_HOME": folder}))


def faults(settings: Settings) -> None:
    """End a process after every single write of a registration, a promotion and a rollback."""
    command = [sys.executable, "-W", "ignore", "-m", "mlplatform.testing.registry_faults"]
    command += [str(settings.home), "every", "register", "promote", "rollback"]
    environ = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    if done.returncode:
        sys.exit(done.stderr[-4000:])
    for found in map(json.loads, done.stdout.splitlines()):
        for failure in found["failures"]:
            print(failure, file=sys.stderr)
        case = f"{found['operation']}: processes that died after a write"
        report(BENCHMARK, case, found["kills"], "kills", aim=f"{found['writes'] - 1}: after all but the last",
               met=found["kills"] == found["writes"] - 1)  # fmt: skip
        case = f"{found['operation']}: mixed or incomplete pairs read, or not healed by the next run"
        report(BENCHMARK, case, len(found["failures"]), "", aim="0", met=not found["failures"])


def together(settings: Settings) -> None:
    """Register from two processes at once."""
    found = side_by_side(settings, ROUNDS)
    registered = sorted(number for numbers in found["registered"] for number in numbers)
    whole = found["complete"] == registered == list(range(1, 2 * ROUNDS + 1))
    aim = f"{2 * ROUNDS}, numbered without a gap"
    report(BENCHMARK, f"two processes, {ROUNDS} registrations each: complete pairs", len(found["complete"]), "pairs",
           aim=aim, met=whole)  # fmt: skip
    report(BENCHMARK, "two processes: versions marked incomplete", found["incomplete"], "", aim="0",
           met=found["incomplete"] == 0)  # fmt: skip
    report(BENCHMARK, "two processes: registrations", 2 * ROUNDS / found["seconds"], "1/s")


def moving_alias(settings: Settings) -> None:
    """Read in one process while another moves the alias."""
    found = flips(settings, FLIPS)
    case = f"reads during {FLIPS} moves of the alias, {found['changes_seen']} of which were seen"
    report(BENCHMARK, f"{case}: mixed pairs", found["mixed"], "", aim="0", met=found["mixed"] == 0)
    report(BENCHMARK, f"{case}: reads", found["reads"], "reads")


def tampering(settings: Settings) -> None:
    """Flip a byte in every stored file in turn."""
    import mlflow

    registry = TinyRegistry.create(settings)
    info, store = registry.register(tiny_forecaster()), registry.store
    files = refused = 0
    for role in ROLES:
        uri = store.client.get_model_version_download_uri(f"{NAME}_{role}", "1")
        folder = Path(mlflow.artifacts.download_artifacts(uri))
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            content = path.read_bytes()
            flipped = bytearray(content)
            flipped[len(content) // 2] ^= 1
            path.write_bytes(flipped)
            files += 1
            try:
                store.verify(info)
            except PairIntegrityError as error:
                refused += path.relative_to(folder).as_posix() in str(error)
            path.write_bytes(content)
    report(BENCHMARK, "a byte flipped in a stored file: refused by name", refused, "files", aim=f"{files}: all",
           met=refused == files)  # fmt: skip


def cost(settings: Settings) -> None:
    """Time what the platform does against the same by MLflow alone."""
    import mlflow

    registry = TinyRegistry.create(settings)
    forecaster = tiny_forecaster()
    for _ in range(2):
        registry.register(forecaster)
    store = PairStore(settings)
    store.promote(NAME, 1, "benchmark", "a start")
    info, client = store.resolve(NAME), store.client
    model, turn = f"{NAME}_model", iter(range(10**6))
    timed("resolve a pair", lambda: store.resolve(NAME), "MLflow's read of an alias",
          lambda: client.get_model_version_by_alias(model, "production"))  # fmt: skip
    timed("load a pair, verified", lambda: store.load(info), "mlflow.pyfunc.load_model",
          lambda: mlflow.pyfunc.load_model(f"models:/{NAME}_forecaster@production"))  # fmt: skip
    timed("promote, verified, with history and mirrors",
          lambda: store.promote(NAME, 2 - next(turn) % 2, "benchmark", "a flip"), "MLflow's three aliases",
          lambda: [client.set_registered_model_alias(f"{NAME}_{role}", "canary", "1") for role in ROLES])  # fmt: skip
    timed("verify all files of a pair", lambda: store.verify(info))
    timed("register a pair", lambda: registry.register(forecaster), repeats=5)


def timed(
    case: str,
    ours: Callable[[], object],
    peer: str | None = None,
    theirs: Callable[[], object] | None = None,
    repeats: int = REPEATS,
) -> None:
    """Report the median milliseconds of two ways, measured by turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats + 1):
        for kept, work in zip(times, (ours, theirs), strict=True):
            if work is not None:
                started = time.perf_counter()
                work()
                kept.append((time.perf_counter() - started) * 1000)
    # The first of each also warms up.
    peer_ms = statistics.median(times[1][1:]) if times[1] else None
    report(BENCHMARK, case, statistics.median(times[0][1:]), "ms", peer=peer, peer_value=peer_ms)


if __name__ == "__main__":
    main()
