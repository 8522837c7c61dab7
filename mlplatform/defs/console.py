"""What a run of a job prints: a line per step, what the steps say, and at the end the reason if it failed.

Dagster's own console logger prints every event, an error for every step that another one's failure kept from running,
and each failure with its traces twice. This one stands in its place; the event log, which the Dagster page shows, is
complete either way.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dagster import DagsterEventType, Field, InitLoggerContext, LoggerDefinition, logger

if TYPE_CHECKING:
    from dagster import DagsterEvent, DagsterInstance

CONSOLE = "console"
WHOLE_LOG = f"loggers: {{{CONSOLE}: {{config: {{log_level: DEBUG}}}}}}"


@logger(
    {"log_level": Field(str, default_value="INFO", description="DEBUG prints events of Dagster and traces, too.")},
    description="A line per step, and at the end of a failed run the reason.",
)
def console_logger(context: InitLoggerContext) -> logging.Logger:
    """Return the logger of one run."""
    # Dagster's events are of the level DEBUG, and a few of them are what people wait for.
    made = logging.Logger("mlplatform.run", logging.DEBUG)
    made.addHandler(_handler(context.run_id, context.logger_config["log_level"].upper()))
    return made


@functools.lru_cache(maxsize=8)
def _handler(_run_id: str | None, least: str) -> RunHandler:
    """Return the handler of a run: Dagster makes one logger for the run and another for its steps."""
    return RunHandler(least)


def print_runs() -> None:
    """Make it the logger of every run of this process whose run configuration names none.

    Dagster uses the loggers of a job or code location only where the run configuration names them, and a job of
    partitioned assets can have no run configuration of its own. So its choice is replaced, where it is made.
    """
    from dagster._core.execution import context_creation_job

    context_creation_job.default_system_loggers = _default_loggers  # type: ignore[attr-defined]


def _default_loggers(
    instance: DagsterInstance | None,
) -> Sequence[tuple[LoggerDefinition, Mapping[str, object]]]:
    return [(console_logger, {"log_level": (instance and instance.python_log_level) or "INFO"})]


class RunHandler(logging.Handler):
    """Prints the log of one run to the standard error.

    Parameters:
        least: level of what steps say that is printed; with DEBUG, Dagster's events are printed, too.
    """

    def __init__(self, least: str = "INFO") -> None:
        super().__init__()
        self._least: int = logging.getLevelNamesMapping()[least]
        self._is_whole = self._least <= logging.DEBUG
        self._begun: set[str] = set()
        self._failures: dict[str, list[str]] = {}
        self._failed_checks: dict[str, list[str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Print what a record means to a reader, if anything."""
        said: dict[str, Any] = record.__dict__["dagster_meta"]
        event, step = said["dagster_event"], said["step_key"]
        if event is not None:
            if self._is_whole:
                self._say(record.getMessage())
            lines = self._of_event(event, said)
        elif record.levelno < self._least or (step is not None and step not in self._begun):
            # A step that has not begun says nothing; that it will not, because another one failed, are Dagster's words.
            return
        else:
            mark = f"{record.levelname}: " if record.levelno >= logging.WARNING else ""
            lines = [f"{'  ' if step else ''}  {mark}{said['orig_message']}"]
        for line in lines:
            self._say(line)

    def _of_event(self, event: DagsterEvent, said: dict[str, Any]) -> list[str]:
        step, kind = event.step_key or "", event.event_type
        if kind == DagsterEventType.RUN_START:
            return [f"{said['job_name']}, Dagster run {said['run_id']}"]
        if kind == DagsterEventType.STEP_START:
            self._begun.add(step)
            return [f"  {_shown(step)} ..."]
        if kind == DagsterEventType.STEP_SUCCESS:
            return [f"  {_shown(step)} done in {event.step_success_data.duration_ms / 1000:.1f} s"]
        if kind == DagsterEventType.STEP_UP_FOR_RETRY:
            return [f"  {_shown(step)} failed and is tried again", *_indented(_reason(event))]
        if kind == DagsterEventType.ASSET_CHECK_EVALUATION:
            return self._of_check(event, step)
        if kind == DagsterEventType.STEP_FAILURE:
            self._failures[step] = self._failed_checks.get(step) or _reason(event)
            return [f"  {_shown(step)} FAILED"]
        if kind == DagsterEventType.RUN_SUCCESS:
            return [f"{said['job_name']} succeeded"]
        if kind == DagsterEventType.RUN_CANCELED:
            return [f"{said['job_name']} was stopped"]
        return self._of_failed_run(event, said) if kind == DagsterEventType.RUN_FAILURE else []

    def _of_check(self, event: DagsterEvent, step: str) -> list[str]:
        found = event.asset_check_evaluation_data
        outcome = f"check {found.check_name} {'passed' if found.passed else 'did not pass'}"
        line = f"{outcome}: {found.description}" if found.description else outcome
        if not found.passed:
            self._failed_checks.setdefault(step, []).append(line)
        return [f"    {line}"]

    def _of_failed_run(self, event: DagsterEvent, said: dict[str, Any]) -> list[str]:
        first = event.job_failure_data.first_step_failure_event
        if first is not None and first.step_key is not None:
            # A step that ran in a process of its own told another handler.
            self._failures.setdefault(first.step_key, _reason(first))
        reasons = self._failures or {"": _reason(event)}
        lines = ["", f"{said['job_name']} FAILED"]
        for step, reason in reasons.items():
            lines += [f"  in the step {_shown(step)}:" if step else "  before its first step:", *_indented(reason)]
        return [*lines, "" if self._is_whole else f"  For every event and all traces, run it with {WHOLE_LOG}", ""]

    @staticmethod
    def _say(line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def _reason(event: DagsterEvent) -> list[str]:
    """Return the lines of the error at the bottom of a failure; of one that this package does not raise, its trace."""
    data: Any = event.event_specific_data
    error = getattr(data, "error", None)
    if error is None:
        return [event.message or "Dagster names no error"]
    while error.cause is not None:
        error = error.cause
    name, _, text = error.message.strip().partition(": ")
    if name.startswith("mlplatform."):
        return f"{name.rpartition('.')[2]}: {text}".splitlines()
    return [*error.message.strip().splitlines(), *"".join(error.stack).splitlines()]


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _shown(step: str) -> str:
    """Return the name of a step with the asset key in it as people write it."""
    return step.replace("__", "/", 1)
