"""Trainers: early stopping, the best weights, fixed lengths, and the same bits from the same seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mlplatform.datamodule.samples import WindowSamples
from mlplatform.models.base import FitOptions, create_model
from mlplatform.models.networks.model import TorchModel
from mlplatform.models.networks.windows import WindowTensors
from mlplatform.testing.model_samples import spec_for, windows
from mlplatform.training.trainers import DLTrainer, MLTrainer, trainer_for


def network(**params: object) -> TorchModel:
    model = create_model("nlinear", {"batch_size": 16, **params}, spec_for("forecast"))
    assert isinstance(model, TorchModel)
    return model


def loss(model: TorchModel, samples: WindowSamples) -> float:
    return float(np.mean(np.square(model.predict(samples) - samples.outputs()), dtype=np.float64))


def weights(model: TorchModel) -> bytes:
    return b"".join(value.numpy().tobytes() for value in model.module.state_dict().values())


def test_the_kind_of_model_decides_the_trainer() -> None:
    assert isinstance(trainer_for(network()), DLTrainer)
    assert isinstance(trainer_for(create_model("ridge", {}, spec_for("forecast"))), MLTrainer)


def test_training_lowers_the_loss() -> None:
    short, long = network(decay=1.0), network(decay=1.0)
    trainer_for(short).fit(short, windows(), None, FitOptions(iterations=(1,)))
    trainer_for(long).fit(long, windows(), None, FitOptions(iterations=(15,)))
    assert loss(long, windows()) < 0.7 * loss(short, windows())


def test_early_stopping_gives_back_the_weights_of_the_best_epoch() -> None:
    # Validation that contradicts training, and steps too large: the loss is best early and gets worse.
    held_out = replace(windows(1), values=-windows(1).values[::-1].copy())
    model = network(learning_rate=0.05, max_epochs=30, patience=3, decay=1.0)
    result = trainer_for(model).fit(model, windows(), held_out, FitOptions(seed=4))
    (best,) = result.iterations
    assert len(result.history) == best + 3 < 30
    assert result.history[best - 1] == min(result.history)
    assert loss(model, held_out) == pytest.approx(min(result.history), rel=1e-5)
    assert loss(model, held_out) < 0.99 * result.history[-1]
    again = network(learning_rate=0.05, max_epochs=30, patience=3, decay=1.0)
    trainer_for(again).fit(again, windows(), None, FitOptions(iterations=(best,), seed=4))
    assert weights(again) == weights(model)


def test_the_same_seed_gives_the_same_weights() -> None:
    trained = []
    for seed in (1, 1, 2):
        model = network(max_epochs=2)
        trainer_for(model).fit(model, windows(), windows(1), FitOptions(seed=seed))
        trained.append(weights(model))
    assert trained[0] == trained[1] != trained[2]


def test_progress_is_reported_every_epoch_and_never_rises() -> None:
    reports: list[tuple[int, float]] = []
    model = network(learning_rate=0.05, max_epochs=6, patience=6, decay=1.0)
    trainer_for(model).fit(
        model, windows(), windows(1), FitOptions(on_progress=lambda step, value: reports.append((step, value)))
    )
    assert [step for step, _ in reports] == list(range(6))
    values = [value for _, value in reports]
    assert values == sorted(values, reverse=True)


class Abandoned(Exception):  # noqa: N818 - a signal, not an error
    """Raised to leave a fit."""


def test_a_fit_can_be_abandoned_and_leaves_the_threads_as_they_were() -> None:
    import torch

    def abandon(_step: int, _value: float) -> None:
        raise Abandoned

    before = torch.get_num_threads()
    for family in ("nlinear", "xgboost"):
        model = create_model(family, {}, spec_for("forecast"))
        with pytest.raises(Abandoned):
            trainer_for(model).fit(model, windows(), windows(1), FitOptions(on_progress=abandon))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("targets", [(1,), (2, 0)])
def test_batches_are_the_windows_of_the_samples(targets: tuple[int, ...]) -> None:
    import torch

    samples = windows(targets=targets)
    order = torch.tensor([5, 0, 7, 2, 3])
    batches = [(batch.past, outputs) for batch, outputs in WindowTensors(samples, False).batches(order, 2)]
    assert [len(inputs) for inputs, _ in batches] == [2, 2, 1]
    inputs, outputs = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
    np.testing.assert_array_equal(inputs, samples.inputs(order.numpy()))
    np.testing.assert_array_equal(outputs, samples.outputs(order.numpy()))


def test_batches_hold_no_more_than_a_network_asks_for() -> None:
    import torch

    samples = replace(windows(targets=(2, 0)), known=(1,), static=(0,), step_seconds=3600)
    full = WindowTensors(samples, True).batch(torch.tensor([3, 1]))
    least = WindowTensors(samples, False, targets_only=True, covariates=frozenset()).batch(torch.tensor([3, 1]))
    assert [part.shape[-1] for part in full] == [3, 1, 1, 4, 4]
    assert [part.shape[-1] for part in least] == [2, 0, 0, 0, 0]
    np.testing.assert_array_equal(least.past.numpy(), full.past.numpy()[:, :, [2, 0]])
    np.testing.assert_array_equal(full.future.numpy(), samples.future(np.array([3, 1])))
    np.testing.assert_array_equal(full.static.numpy(), samples.static_values(np.array([3, 1])))


def test_one_window_computes_its_own_calendar_and_many_share_one() -> None:
    import torch

    samples = replace(windows(), step_seconds=3600)
    shared = WindowTensors(samples, True).batch(torch.tensor([7]))
    one = samples.select(np.array([7]))
    alone = WindowTensors(one, True).batch(torch.tensor([0]))
    assert ("calendar", None, "cpu") in samples.cache
    assert ("calendar", None, "cpu") not in one.cache
    for name in ("past_calendar", "future_calendar"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(shared, name))
