"""Changes to the registry that are cut off anywhere, or made side by side: readers never notice, writers heal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlplatform.registry.pairs import ROLES
from mlplatform.settings import Settings
from mlplatform.testing import forks
from mlplatform.testing.registry_processes import flips, side_by_side

pytestmark = pytest.mark.integration

# What a registration, without its artifacts, and a promotion do to the registry, in this order.
COMMIT = [
    "set_registered_model_tag",  # the lock: choosing a number
    "set_registered_model_tag",  # the lock: in the queue
    "create_model_version",
    "create_model_version",
    "create_model_version",
    "set_model_version_tag",  # the pair id: the commit point
    "set_registered_model_tag",  # the history of `staging`: announced
    "set_registered_model_alias",  # `staging`: the commit point
    "set_registered_model_tag",  # the history of `staging`: done
    *["set_registered_model_alias"] * 2,  # its mirrors
    "delete_registered_model_tag",  # the lock
]
PROMOTION = [
    "set_registered_model_tag",
    "set_registered_model_tag",
    "set_registered_model_tag",  # the history of `production`: announced
    "set_registered_model_alias",  # `production`: the commit point
    "set_registered_model_tag",  # the history of `production`: done
    *["set_registered_model_alias"] * 5,  # mirrors: `previous` everywhere, `production` on the other two
    "delete_registered_model_tag",
]


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> dict[str, dict[str, Any]]:
    """What was left by processes that died in the middle, by the change they were making."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "base_1").mkdir()
    shutil.copy(mlflow_database, folder / "base_1" / "mlflow.db")
    names = ("commit", "promote", "rollback")
    command = ["-m", "mlplatform.testing.registry_faults", str(folder), "distinct", *names]
    done = forks.run(command, folder=folder)
    assert done.returncode == 0, done.stderr[-5000:]
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    return {report["operation"]: report for report in reports}


@pytest.mark.parametrize(("change", "calls"), [("commit", COMMIT), ("promote", PROMOTION), ("rollback", PROMOTION)])
def test_a_change_that_dies_after_any_write_is_whole_or_not_there_and_the_next_run_heals_it(
    faults: dict[str, dict[str, Any]], change: str, calls: list[str]
) -> None:
    report = faults[change]
    assert report["failures"] == []
    assert report["client_calls"] == calls
    # Every call is a state of its own for readers, and a process died in each but the first and the last.
    assert report["states"] == len(calls) + 1
    assert report["kills"] >= len(calls) - 1


def test_registrations_from_two_processes_are_all_whole_and_leave_no_gap(empty: Settings) -> None:
    report = side_by_side(empty, rounds=3)
    assert sorted(number for numbers in report["registered"] for number in numbers) == list(range(1, 7))
    assert report["complete"] == list(range(1, 7))
    assert report["incomplete"] == 0
    assert report["numbers"] == dict.fromkeys(ROLES, 6)


def test_a_reader_in_another_process_never_sees_a_mixed_pair_while_the_alias_moves(empty: Settings) -> None:
    report = flips(empty, count=12)
    assert report["mixed"] == 0
    assert report["changes_seen"] > 2
