"""`mlplatform train`, in a process of its own, as a user types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlplatform.testing.yard import EXPERIMENT, Yard, write_option

pytestmark = pytest.mark.integration


def run(yard: Yard, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **yard.environ, "DAGSTER_HOME": str(yard.settings.home / "dagster")}
    return subprocess.run(
        [sys.executable, "-m", "mlplatform.cli", *words], env=environ, capture_output=True, text=True, timeout=240
    )


def test_a_run_says_what_came_out_and_a_failed_one_why(trained_yard: Yard, tmp_path: Path) -> None:
    yard = trained_yard.clone_to(tmp_path)
    refused = run(yard, "train", EXPERIMENT)
    assert refused.returncode == 3, refused.stderr
    assert refused.stdout.startswith(f"{EXPERIMENT} version 2: not promoted; ")
    assert f"train_{EXPERIMENT} succeeded" in refused.stderr
    wrong = run(yard, "train", EXPERIMENT, "--set", "horizon=0")
    assert wrong.returncode == 1
    assert "horizon" in wrong.stderr
    write_option(
        yard.conf, "dataset/yard", {**yard.config.dataset.model_dump(mode="json"), "source": {"uri": "/nowhere.csv"}}
    )
    failed = run(yard, "train", EXPERIMENT)
    assert failed.returncode == 1
    assert "/nowhere.csv" in failed.stderr
    assert "failed; the whole output is in" in failed.stdout
    assert failed.stderr.splitlines()[-1].startswith("mlplatform: DataError: ")
    assert "/nowhere.csv" in failed.stderr.splitlines()[-1]


def test_a_version_that_is_not_allowed_is_told_before_a_run_begins(trained_yard: Yard, tmp_path: Path) -> None:
    yard = trained_yard.clone_to(tmp_path)
    refused = run(yard, "train", EXPERIMENT, "--model-version", "ridge_v1")
    assert refused.returncode == 1
    (told,) = refused.stderr.splitlines()
    assert told.startswith("mlplatform: model_version 'ridge_v1' is not allowed for")
    assert "write `allowed: {model: [ridge_v1]}` in the experiment's YAML" in told
    assert not (yard.settings.home / "runs" / f"train_{EXPERIMENT}.log").exists()
