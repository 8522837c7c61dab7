"""What a run prints: its steps, what they found, and the reason once if it failed."""

from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from dagster import (
    AssetCheckResult,
    DagsterInstance,
    Definitions,
    OpExecutionContext,
    RetryPolicy,
    asset,
    asset_check,
    define_asset_job,
    job,
    op,
)

from mlplatform.config import ConfigError
from mlplatform.defs.console import console_logger, print_runs
from mlplatform.settings import PACKAGE_ROOT
from mlplatform.testing import forks
from mlplatform.testing.yard import TRAIN, Yard

# More than the data has.
FAILING = {"reference_steps": 99_999}
REASON = "SplitError: split version 'yard' needs 100000 steps, but dataset 'yard' has 1440"


@pytest.fixture(autouse=True)
def printed_runs() -> None:
    print_runs()


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> tuple[CompletedProcess[str], Path]:
    """A training whose fourth step fails, and its `DAGSTER_HOME`."""
    yard = Yard.create(tmp_path_factory.mktemp("failed"), mlflow_database, split=FAILING)
    home = yard.settings.home / "dagster"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text((PACKAGE_ROOT.parent / "dagster.yaml").read_text())
    command = ["dagster", "job", "execute", "-m", "mlplatform.definitions", "-j", TRAIN]
    return forks.run(command, environ={**yard.environ, "DAGSTER_HOME": str(home)}), home


def test_a_failed_training_prints_its_reason_once_and_last(failed: tuple[CompletedProcess[str], Path]) -> None:
    done, _home = failed
    assert done.returncode == 1
    assert done.stderr.count(REASON) == 1
    assert "Stack Trace" not in done.stderr
    assert "Dependencies for step" not in done.stderr
    assert "cv_folds" not in done.stderr
    ending = done.stderr[done.stderr.index(f"\n{TRAIN} FAILED\n") :].strip().splitlines()
    assert ending[1].strip() == "in the step yard/splits:"
    assert ending[2].strip().startswith(REASON)
    assert ending[3].strip().startswith("For every event and all traces")
    assert ending[-1].startswith("Error: Run ")
    assert "  yard/raw done in " in done.stderr


def test_the_event_log_of_a_failed_training_is_complete(failed: tuple[CompletedProcess[str], Path]) -> None:
    _done, home = failed
    with DagsterInstance.from_config(str(home)) as instance:
        (run,) = instance.get_runs()
        entries = instance.all_logs(run.run_id)
    failures = [entry.dagster_event for entry in entries if entry.dagster_event and entry.dagster_event.is_step_failure]
    assert [event.step_key for event in failures if event] == ["yard__splits"]
    assert failures[0] is not None
    error = failures[0].step_failure_data.error
    assert error is not None
    assert error.cause is not None
    assert "write_split" in "".join(error.cause.stack)
    assert sum("Not executing" in entry.user_message for entry in entries) == 12


def test_a_run_that_a_check_stops_ends_with_what_the_check_found(
    instance: DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    @asset
    def rows() -> None: ...

    @asset_check(asset=rows, blocking=True)
    def whole() -> AssetCheckResult:
        return AssetCheckResult(passed=False, description="two rows are gone; read them again")

    @asset(deps=[rows])
    def model() -> None: ...

    defs = Definitions(assets=[rows, model], asset_checks=[whole], jobs=[define_asset_job("all")])
    defs.resolve_job_def("all").execute_in_process(instance=instance, raise_on_error=False)
    before, _, ending = capfd.readouterr().err.partition("\nall FAILED\n")
    assert "in the step rows_whole:\n    check whole did not pass: two rows are gone; read them again\n" in ending
    assert "Stack Trace" not in before + ending
    assert "model" not in before + ending


def _of(error: Exception, retries: int = 0) -> str:
    """Return the name of a job that raises an error and retries so often."""

    @op(name="step", retry_policy=RetryPolicy(max_retries=retries))
    def step(context: OpExecutionContext) -> None:
        context.log.info("reads")
        raise error

    @job(name="short", logger_defs={"console": console_logger})
    def short() -> None:
        step()

    with DagsterInstance.ephemeral() as instance:
        run_config = {"loggers": {"console": {"config": {"log_level": "DEBUG"}}}} if retries == 0 else {}
        short.execute_in_process(run_config=run_config, instance=instance, raise_on_error=False)
    return "short"


def test_an_error_that_nobody_foresaw_comes_with_its_trace(capfd: pytest.CaptureFixture[str]) -> None:
    _of(KeyError("oil"), retries=1)
    printed = capfd.readouterr().err
    _before, _, ending = printed.partition("\nshort FAILED\n")
    assert "KeyError: 'oil'" in ending
    assert f'File "{__file__}"' in ending
    assert printed.count("step failed and is tried again") == 1


def test_everything_is_printed_for_those_who_ask(capfd: pytest.CaptureFixture[str]) -> None:
    _of(ConfigError("horizon 0 is too short; use 1"))
    printed = capfd.readouterr().err
    assert "STEP_START" in printed
    assert "Stack Trace" in printed
    assert "    ConfigError: horizon 0 is too short; use 1\n" in printed.partition("\nshort FAILED\n")[2]
