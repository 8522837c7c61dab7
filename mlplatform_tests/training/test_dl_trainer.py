"""The deep-learning trainer: resuming a killed fit, schedules, and errors that say what to do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest

from mlplatform.models.base import FitOptions, FitResult, create_model
from mlplatform.models.networks.model import TorchModel, TorchParams
from mlplatform.testing.forks import Fork
from mlplatform.testing.model_samples import spec_for, windows
from mlplatform.training import dl_trainer
from mlplatform.training.checkpoints import claimed, read_checkpoint, write_checkpoint
from mlplatform.training.schedules import learning_rate
from mlplatform.training.trainers import trainer_for

PARAMS = {"batch_size": 16, "max_epochs": 8, "patience": 8, "schedule": "cosine", "clip_norm": 1.0}


def fit(checkpoint: Path | None, on_progress: object = None) -> tuple[TorchModel, FitResult, list[int]]:
    steps: list[int] = []

    def progress(step: int, value: float) -> None:
        steps.append(step)
        if callable(on_progress):
            on_progress(step, value)

    model = create_model("nlinear", PARAMS, spec_for("forecast"))
    assert isinstance(model, TorchModel)
    options = FitOptions(seed=3, checkpoint=checkpoint, on_progress=progress)
    return model, trainer_for(model).fit(model, windows(), windows(1), options), steps


def fit_and_die(checkpoint: Path) -> None:
    """Fit, and kill this process after the fourth epoch."""

    def kill(step: int, _value: float) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    fit(checkpoint, kill)


@pytest.fixture
def trained_epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs that were really trained, as they are trained."""
    epochs: list[int] = []
    descend = dl_trainer._Fit._descend

    def counted(fit: dl_trainer._Fit) -> float:
        epochs.append(fit.progress.epoch)
        return descend(fit)

    monkeypatch.setattr(dl_trainer._Fit, "_descend", counted)
    return epochs


def test_a_killed_fit_goes_on_to_the_bits_of_one_that_was_not(tmp_path: Path, trained_epochs: list[int]) -> None:
    folder = tmp_path / "fit"
    with Fork(fit_and_die, folder) as child:
        assert child.wait() == -signal.SIGKILL, child.stderr
    assert [path.name for path in folder.iterdir()] == ["fit.pt"]
    resumed, result, steps = fit(folder)
    assert trained_epochs == [4, 5, 6, 7]
    whole, expected, reported = fit(None)
    # Pruning compares the losses of all epochs, so it hears of the earlier ones again.
    assert steps == reported == list(range(8))
    assert result == expected
    assert resumed.predict(windows(2)).tobytes() == whole.predict(windows(2)).tobytes()
    assert not list(tmp_path.iterdir())


def test_a_fit_that_is_given_up_leaves_no_checkpoint_and_one_that_fails_does(tmp_path: Path) -> None:
    def stop(error: BaseException) -> Callable[[int, float], None]:
        def progress(step: int, _: float) -> None:
            if step == 2:
                raise error

        return progress

    with pytest.raises(optuna.TrialPruned):
        fit(tmp_path / "pruned", stop(optuna.TrialPruned()))
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "interrupted", stop(KeyboardInterrupt()))
    assert [path.name for path in tmp_path.rglob("*")] == ["interrupted", "fit.pt"]


def test_two_fits_do_not_share_a_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, trained_epochs: list[int]
) -> None:
    folder = tmp_path / "fit"
    write_checkpoint(folder, {"identity": {}})
    before = (folder / "fit.pt").read_bytes()
    with claimed(folder) as is_own, claimed(folder) as is_own_too:
        assert (is_own, is_own_too) == (True, False)
        _, result, _ = fit(folder)
    assert "another fit is using the checkpoint" in caplog.text
    assert (folder / "fit.pt").read_bytes() == before
    assert trained_epochs == list(range(8))
    assert result == fit(None)[1]
    assert [path.name for path in tmp_path.rglob("*")] == ["fit", "fit.pt"]


def test_a_damaged_checkpoint_is_reported_and_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_checkpoint(tmp_path / "fit", {"identity": {}})
    whole = (tmp_path / "fit" / "fit.pt").read_bytes()
    for damaged in (b"", b"no archive", whole[: len(whole) // 2]):
        (tmp_path / "fit").mkdir(exist_ok=True)
        (tmp_path / "fit" / "fit.pt").write_bytes(damaged)
        caplog.clear()
        _, result, _ = fit(tmp_path / "fit")
        assert "fit.pt cannot be read" in caplog.text
        assert result == fit(None)[1]


def test_a_checkpoint_of_the_same_values_at_other_times_is_of_another_fit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, stop)
    model = create_model("nlinear", PARAMS, spec_for("forecast"))
    train, later = windows(), windows().timestamps + np.timedelta64(1, "h")
    options = FitOptions(seed=3, checkpoint=tmp_path)
    trainer_for(model).fit(model, replace(train, timestamps=later), windows(1), options)
    assert "(data differ)" in caplog.text


def test_states_are_written_no_more_often_than_asked_for(tmp_path: Path) -> None:
    def look(_: int, __: float) -> None:
        assert not (tmp_path / "fit").exists()

    model = create_model("nlinear", PARAMS, spec_for("forecast"))
    options = FitOptions(checkpoint=tmp_path / "fit", checkpoint_seconds=3600, on_progress=look)
    trainer_for(model).fit(model, windows(), windows(1), options)


def test_a_checkpoint_of_another_fit_is_reported_and_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    identity = {"model": "a", "parameters": "b", "data": "c"}
    write_checkpoint(tmp_path, {"identity": identity, "epoch": 3})
    assert read_checkpoint(tmp_path, identity) == {"identity": identity, "epoch": 3}
    assert not caplog.records
    assert read_checkpoint(tmp_path, identity | {"data": "d"}) is None
    assert "is of another fit (data differ)" in caplog.text
    caplog.clear()
    _, result, steps = fit(tmp_path)
    assert "(model, parameters, seed or iterations, data differ)" in caplog.text
    assert steps[0] == 0
    assert result == fit(None)[1]


def test_curves_have_one_value_per_epoch() -> None:
    _, result, _ = fit(None)
    assert {name: len(values) for name, values in result.curves.items()} == {"train_loss": 8, "learning_rate": 8}
    assert len(result.history) == 8


def test_a_loss_that_is_no_number_names_the_epoch_and_the_way_out() -> None:
    model = create_model("nlinear", {"learning_rate": 1e30, "batch_size": 16}, spec_for("forecast"))
    with pytest.raises(FloatingPointError, match=r"epoch 1, .*lower learning_rate .* clip_norm"):
        trainer_for(model).fit(model, windows(), None)


@pytest.mark.parametrize(("family", "column"), [("nlinear", "b"), ("dlinear", "b"), ("ridge", "b"), ("lstm", "c")])
def test_missing_values_are_refused_by_name(family: str, column: str) -> None:
    samples = windows()
    values = samples.values.copy()
    values[5, samples.channels.index(column)] = np.nan
    model = create_model(family, {}, spec_for("forecast"))
    with pytest.raises(ValueError, match=f"cannot read missing values, found in {column}; add an impute step"):
        trainer_for(model).fit(model, replace(samples, values=values), None)


@pytest.mark.parametrize("family", ["nlinear", "dlinear", "ridge"])
def test_what_a_family_does_not_look_at_may_be_missing(family: str) -> None:
    values = windows().values.copy()
    values[5, 2] = np.nan
    model = create_model(family, {}, spec_for("forecast"))
    gappy = replace(windows(), values=values)
    model.check_samples(gappy)
    trainer_for(model).fit(model, gappy, None, FitOptions(iterations=(1,)))
    assert np.isfinite(model.predict(gappy)).all()


def test_weight_decay_pulls_matrices_but_no_offsets() -> None:
    """The target rises by five a step: once the layer's matrix is gone, only its offsets can say so."""
    samples = windows()
    values = np.cumsum(np.full_like(samples.values, 5.0), axis=0)
    rising = replace(samples, values=values)
    params = {"optimiser": "adamw", "learning_rate": 0.1, "weight_decay": 5.0, "decay": 1.0, "max_epochs": 200}
    model = create_model("nlinear", params, spec_for("forecast"))
    trainer_for(model).fit(model, rising, None, FitOptions())
    assert isinstance(model, TorchModel)
    weight, offset = (value.detach().abs() for value in model.module.parameters())
    assert weight.max() < offset.min()
    np.testing.assert_allclose(model.predict(rising), rising.outputs(), rtol=0.02)


def test_schedules() -> None:
    def rates(**params: object) -> list[float]:
        chosen = TorchParams.model_validate({"learning_rate": 1.0, "max_epochs": 10, **params})
        return [round(learning_rate(chosen, epoch), 4) for epoch in (0, 1, 3, 5, 10)]

    assert rates(schedule="constant") == [1, 1, 1, 1, 1]
    assert rates(schedule="exponential") == [1, 0.5, 0.125, 0.0312, 0.001]
    assert rates(schedule="cosine") == [1, 0.9755, 0.7939, 0.5, 0]
    assert rates(schedule="one_cycle") == [0.04, 0.28, 1, 0.8117, 0]
    assert rates(schedule="constant", warmup_epochs=3)[:3] == [0.25, 0.5, 1]
