"""Dagster's sensor daemon in a process of its own that dies at a chosen moment, and looks again in the next one.

Here: rounds of the daemon over a yard with a history, run through `forks`.
Not here: what the sensors decide.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from dagster import Definitions, definitions

from mlplatform.testing.forks import Fork
from mlplatform.testing.yard import EXPERIMENT, Yard

FOLDER_VARIABLE = "MLPLATFORM_TESTING_YARD"
SENSOR, CODE_LOCATION = f"drift_{EXPERIMENT}", "yard_code_location"
# After the decision was kept and before anything was asked for; the others are Dagster's own names for moments.
DECISION_KEPT = "DECISION_KEPT"
MOMENTS = ("TICK_CREATED", "TICK_HELD", DECISION_KEPT, "RUN_IDS_RESERVED", "RUN_CREATED", "RUN_LAUNCHED")


@definitions
def yard_code_location() -> Definitions:
    """Return the code location of the yard that the environment names."""
    return Yard.at(Path(os.environ[FOLDER_VARIABLE])).definitions()


def run_daemon(folder: Path, *minutes: float, die_at: str | None = None) -> int:
    """Run the sensor daemon for some rounds in a process of its own and return its exit status, -9 if it died.

    Parameters:
        folder: of a yard with a history, whose drift sensor is on.
        minutes: how much later than now the daemon believes it is, for every round.
        die_at: one of `MOMENTS`, in the first round; `None` to live.
    """
    with Fork(_rounds, folder, minutes, die_at, environ={FOLDER_VARIABLE: str(folder)}) as process:
        status = process.wait(120)
        if status not in (0, -signal.SIGKILL):
            raise RuntimeError(f"the daemon ended with status {status}: {process.stderr}")
        return status


def _rounds(folder: Path, minutes: Sequence[float], die_at: str | None) -> None:
    from dagster._core.remote_origin import InProcessCodeLocationOrigin
    from dagster._core.test_utils import create_test_daemon_workspace_context, freeze_time
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
    from dagster._daemon.sensor import execute_sensor_iteration

    from mlplatform.monitoring.retraining.journal import Journal, Recorded

    if die_at == DECISION_KEPT:
        append = Journal.append

        def append_and_die(journal: Journal, record: Recorded) -> bool:
            append(journal, record)
            os.kill(os.getpid(), signal.SIGKILL)
            return True

        Journal.append = append_and_die  # type: ignore[method-assign, assignment] # it dies
    target = LoadableTargetOrigin(module_name=__name__, attribute=CODE_LOCATION)
    origin = InProcessCodeLocationOrigin(target, location_name="yard")
    flags = {SENSOR: {die_at: signal.SIGKILL}} if die_at and die_at != DECISION_KEPT else None
    with (
        Yard.at(folder).instance as instance,
        create_test_daemon_workspace_context(InProcessWorkspaceLoadTarget(origin), instance) as workspace,
    ):
        logger = logging.getLogger("mlplatform.testing.daemon")
        now = dt.datetime.now(dt.UTC)
        for later in minutes:
            with freeze_time(now + dt.timedelta(minutes=later)):
                list(execute_sensor_iteration(workspace, logger, None, None, debug_crash_flags=flags))
