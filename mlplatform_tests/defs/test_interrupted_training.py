"""A training run that is killed in the middle of a network's fit, and started again."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance

from mlplatform.candidates.candidate import Candidate
from mlplatform.defs.keys import TUNED_MODEL
from mlplatform.models.networks.model import TorchModel
from mlplatform.testing.forks import Fork
from mlplatform.testing.yard import EXPERIMENT, TRAIN, Yard, write_option
from mlplatform.training import dl_trainer, run_checkpoints
from mlplatform.training.checkpoints import claimed

pytestmark = pytest.mark.integration

EPOCHS = 5
NETWORK = {
    "version": "yard",
    "family": "lstm",
    "params": {"hidden": 4, "max_epochs": EPOCHS, "patience": EPOCHS, "dropout": 0.3, "batch_size": 256},
    "search_space": {},
}


@pytest.fixture(scope="module")
def network_yard(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Yard:
    """An installation that has trained a network once, without an interruption."""
    yard = Yard.create(tmp_path_factory.mktemp("network"), mlflow_database)
    write_option(yard.conf, "model/yard", NETWORK)
    assert yard.run(TRAIN).success
    return yard


@pytest.fixture(scope="module")
def whole(network_yard: Yard) -> Candidate:
    """What the run that nobody interrupted made."""
    return network_yard.candidate


@pytest.fixture
def trained_epochs(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many epochs were trained for every purpose, with a checkpoint after every epoch."""
    monkeypatch.setattr(run_checkpoints, "SECONDS", 0.0)
    counter: Counter[str] = Counter()
    descend = dl_trainer._Fit._descend

    def counted(fit: dl_trainer._Fit) -> float:
        counter[purpose_of(fit)] += 1
        return descend(fit)

    monkeypatch.setattr(dl_trainer._Fit, "_descend", counted)
    return counter


def purpose_of(fit: dl_trainer._Fit) -> str:
    return "none" if fit.options.checkpoint is None else fit.options.checkpoint.name.partition("-")[0]


def train_and_die(environ: dict[str, str], purpose: str, epochs: int) -> None:
    """Materialise the tuned model, and kill this process after some epochs of one of its fits."""
    run_checkpoints.SECONDS = 0.0
    write = dl_trainer.write_checkpoint
    written = 0

    def write_and_die(folder: Path, state: dict[str, Any]) -> None:
        nonlocal written
        write(folder, state)
        written += folder.name.startswith(purpose)
        if written == epochs:
            os.kill(os.getpid(), signal.SIGKILL)

    dl_trainer.write_checkpoint = write_and_die
    Yard(environ, DagsterInstance.ephemeral()).materialize(TUNED_MODEL)


def kill_a_run(yard: Yard, purpose: str, epochs: int) -> None:
    with Fork(train_and_die, yard.environ, purpose, epochs) as child:
        assert child.wait() == -signal.SIGKILL, child.stderr[-3000:]


def weights(candidate: Candidate) -> dict[str, bytes]:
    assert isinstance(candidate.model, TorchModel)
    return {name: value.numpy().tobytes() for name, value in candidate.model.module.state_dict().items()}


def states(yard: Yard) -> list[str]:
    """Return the purposes of the states on disk."""
    return [path.parent.name.partition("-")[0] for path in yard.settings.checkpoints_dir.rglob("fit.pt")]


def left_behind(yard: Yard) -> list[Path]:
    return list((yard.settings.checkpoints_dir / EXPERIMENT).iterdir())


@pytest.fixture
def clean(network_yard: Yard, whole: Candidate) -> Iterator[Yard]:
    """The installation; nothing may be left of an interrupted run after a test."""
    assert whole.config == network_yard.config
    assert not left_behind(network_yard)
    yield network_yard
    assert not left_behind(network_yard)


@pytest.mark.parametrize("purpose", ["fold_1", "refit"])
def test_a_killed_run_goes_on_in_the_middle_of_its_fit(
    clean: Yard, whole: Candidate, trained_epochs: Counter[str], purpose: str, caplog: pytest.LogCaptureFixture
) -> None:
    (refit,) = whole.report.iterations
    done = 3 if purpose == "fold_1" else refit - 1
    assert done > 0
    # The trial is repeated from its first fold; one that has finished stays finished.
    left = {"fold_0": EPOCHS, "fold_1": EPOCHS - done, "refit": refit} if purpose == "fold_1" else {"refit": 1}
    kill_a_run(clean, purpose, done)
    assert states(clean) == [purpose]
    assert clean.materialize(TUNED_MODEL).success
    assert trained_epochs == left
    assert f"after epoch {done}" in caplog.text
    again = clean.candidate
    assert weights(again) == weights(whole)
    assert again.report.candidate == whole.report.candidate
    assert again.report.curves == whole.report.curves
    assert [trial["loss"] for trial in again.report.trials] == [trial["loss"] for trial in whole.report.trials]


def test_a_run_with_other_inputs_leaves_the_interrupted_one_alone(
    clean: Yard, whole: Candidate, trained_epochs: Counter[str]
) -> None:
    kill_a_run(clean, "fold_0", 2)
    other = {"resources": {"training": {"config": {"overrides": ["seed=5"]}}}}
    assert clean.materialize(TUNED_MODEL, run_config=other).success
    assert trained_epochs["fold_0"] == EPOCHS
    assert weights(clean.candidate) != weights(whole)
    assert states(clean) == ["fold_0"]
    trained_epochs.clear()
    assert clean.materialize(TUNED_MODEL).success
    assert trained_epochs["fold_0"] == EPOCHS - 2
    assert weights(clean.candidate) == weights(whole)


def test_a_run_beside_one_with_the_same_inputs_keeps_out_of_its_way(
    clean: Yard, whole: Candidate, trained_epochs: Counter[str]
) -> None:
    kill_a_run(clean, "fold_0", 2)
    (state,) = clean.settings.checkpoints_dir.rglob("fit.pt")
    before = state.read_bytes()
    with claimed(state.parent) as is_own:
        assert is_own
        assert clean.materialize(TUNED_MODEL).success
        assert state.read_bytes() == before
    assert trained_epochs["none"] == EPOCHS
    assert trained_epochs["fold_1"] == EPOCHS
    assert weights(clean.candidate) == weights(whole)
    shutil.rmtree(state.parents[1])


@pytest.mark.usefixtures("trained_epochs")
def test_what_nobody_repeats_goes_after_a_week(clean: Yard) -> None:
    kill_a_run(clean, "fold_0", 2)
    other = {"resources": {"training": {"config": {"overrides": ["seed=5"]}}}}
    for path in clean.settings.checkpoints_dir.rglob("*"):
        os.utime(path, (0, 0))
    assert clean.materialize(TUNED_MODEL, run_config=other).success
    assert not left_behind(clean)
