"""A training run, started as from a shell: `dagster job execute` in a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlplatform.api.facts import facts_html
from mlplatform.child_processes import child_process
from mlplatform.config import ConfigError, load_experiment
from mlplatform.settings import Settings, check_dagster_home

RUN_LINE = re.compile(r", Dagster run (?P<run>[0-9a-f-]{36})$")


@dataclass(frozen=True)
class TrainingResult:
    """How a training run ended.

    Attributes:
        succeeded: whether the run did; a version that the gate refuses is a success.
        dagster_run: its id; `None` if it never began.
        version: what it registered; `None` if it failed before.
        promoted: whether that went into production.
        reason: the gate's, or why the run failed.
        log: where the whole output is.
    """

    experiment: str
    succeeded: bool
    dagster_run: str | None
    version: int | None
    promoted: bool
    reason: str
    log: Path

    def _repr_html_(self) -> str:
        return facts_html(vars(self))


def train(
    experiment: str,
    *,
    versions: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    dry_run: bool = False,
    despite_broken_data: bool = False,
    on_line: Callable[[str], None] | None = None,
    settings: Settings | None = None,
) -> TrainingResult:
    """Train an experiment, register the pair, and promote it if the gate says so; ends when the run has ended.

    Parameters:
        versions: `split_version`, `feature_version` and `model_version` to use instead of the active ones.
        overrides: Hydra overrides, such as `model.params.max_depth=4`.
        dry_run: train, register and decide, but promote nothing.
        despite_broken_data: train though the newest drift report says that the data are broken; a run fails otherwise.
        on_line: called with every line that the run prints.

    Raises:
        AddressError: if Dagster would keep its databases outside of `DAGSTER_HOME`.
        ConfigError: if the experiment, a version or an override cannot be used.
    """
    from mlplatform.promotion import version_overrides

    settings = settings or Settings.from_env()
    request = _request(dict(versions or {}), list(overrides), dry_run, despite_broken_data)
    # A run would find the same mistakes, but some seconds and many lines later.
    load_experiment(experiment, [*version_overrides(experiment, versions or {}, settings), *overrides], settings)
    log = settings.training_log(experiment)
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        command = [dagster_command(), "job", "execute", "-m", "mlplatform.definitions", "-j", f"train_{experiment}"]
        if request:
            path = Path(place, "run.yaml")
            _write_yaml(path, {"resources": {"training": {"config": request}}})
            command += ["-c", str(path)]
        status, run, last = _execute(command, log, dagster_environment(settings), on_line or _silent)
    if status != 0:
        return TrainingResult(experiment, False, run, None, False, last or f"status {status}; see {log}", log)
    return _result(experiment, run, log, settings)


def dagster_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a Dagster process: that of this one, and a home for its instance that exists.

    Raises:
        AddressError: if Dagster would keep its databases outside of that home. It makes them before it reads any code.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or settings.home / "dagster")
    check_dagster_home({"DAGSTER_HOME": str(home)})
    home.mkdir(parents=True, exist_ok=True)
    # In a checkout the project's own settings of Dagster lie beside the code.
    own, kept = Path(__file__).resolve().parents[2] / "dagster.yaml", home / "dagster.yaml"
    if own.is_file() and not kept.exists():
        shutil.copy(own, kept)
    return {
        **os.environ,
        "MLPLATFORM_HOME": str(settings.home),
        "DAGSTER_HOME": str(home),
        "PYTHONUNBUFFERED": "1",
        # What libraries say to the developers of others would stand between the lines of a run.
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore::DeprecationWarning"),
    }


def _request(
    versions: dict[str, str], overrides: list[str], dry_run: bool, despite_broken_data: bool
) -> dict[str, Any]:
    from mlplatform.config import VERSION_GROUPS

    unknown = sorted(set(versions) - set(VERSION_GROUPS))
    if unknown:
        raise ConfigError(f"unknown version {unknown[0]!r}; known: {', '.join(VERSION_GROUPS)}")
    request: dict[str, Any] = dict(versions)
    if overrides:
        request["overrides"] = overrides
    if dry_run:
        request["dry_run"] = True
    if despite_broken_data:
        request["despite_broken_data"] = True
    return request


def dagster_command() -> str:
    """Return the path of the command `dagster`.

    Raises:
        ConfigError: if it is not installed.
    """
    beside = Path(sys.executable).with_name("dagster")
    found = str(beside) if beside.exists() else shutil.which("dagster")
    if found is None:
        raise ConfigError("the command dagster is not installed; install the extra `training`")
    return found


def _write_yaml(path: Path, document: Any) -> None:
    import yaml

    path.write_text(yaml.safe_dump(document, sort_keys=False))


def _execute(
    command: list[str], log: Path, environment: dict[str, str], on_line: Callable[[str], None]
) -> tuple[int, str | None, str]:
    """Run a command and hand on its lines from the run's first one; return status, run id and the reason of a failure.

    The process does not outlive this one, however the wait for it ends.
    """
    run, lines = None, list[str]()
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment}
    with child_process(command, **options) as process, log.open("w") as record:
        assert process.stdout is not None
        for raw in process.stdout:
            record.write(raw)
            line = raw.rstrip()
            found = RUN_LINE.search(line)
            run = run or (found["run"] if found else None)
            # Above it stands what the command has to say about itself.
            if run is not None:
                on_line(line)
            lines.append(line)
        return process.wait(), run, _reason(lines)


def _reason(lines: Sequence[str]) -> str:
    """Return what a failed run gives as its reason; of one that never began, its last word."""
    failed = next((place for place, line in enumerate(lines) if line.endswith(" FAILED") and line[:1].strip()), None)
    if failed is None:
        return next((line for line in reversed(lines) if line.strip()), "")
    told = [line.strip() for line in lines[failed + 1 :] if not line.startswith("  For every event")]
    return "\n".join(line for line in told if line)


def _result(experiment: str, run: str | None, log: Path, settings: Settings) -> TrainingResult:
    from mlplatform.registry import experiment_id
    from mlplatform.registry.pairs import PairStore

    store = PairStore(settings)
    config = load_experiment(experiment, settings=settings)
    found = store.client.search_runs(
        [experiment_id(settings, experiment)], f"tags.dagster_run_id = '{run}'", max_results=1
    )
    if not found:
        return TrainingResult(experiment, True, run, None, False, f"the run left no record in MLflow; see {log}", log)
    version = store.of_run(config.registered_name, found[0].info.run_id).version
    tags = found[0].data.tags
    promoted = tags.get("promotion.promote") == "true"
    return TrainingResult(experiment, True, run, version, promoted, tags.get("promotion.reason", ""), log)


def _silent(_line: str) -> None:
    """Say nothing."""
