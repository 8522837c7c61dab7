"""The closed form: the choice of the penalty, and what it costs nothing to know about held-out windows."""

from __future__ import annotations

import numpy as np
import pytest

from mlplatform.models.base import FitOptions, create_model
from mlplatform.models.families.ridge import ALPHAS, Ridge
from mlplatform.testing.model_samples import spec_for, windows

TARGETS = (0, 2)


def ridge(**params: object) -> Ridge:
    model = create_model("ridge", params, spec_for("forecast", TARGETS))
    assert isinstance(model, Ridge)
    return model


def test_the_penalty_with_the_least_validation_error_is_chosen() -> None:
    train, held_out = windows(0, TARGETS), windows(1, TARGETS)
    result = (chosen := ridge(alpha=None)).fit(train, held_out)
    errors = []
    for alpha in ALPHAS:
        (model := ridge(alpha=float(alpha))).fit(train, None)
        errors.append(np.mean(np.square(model.predict(held_out) - held_out.outputs(), dtype=np.float64)))
    np.testing.assert_allclose(result.history, errors, rtol=1e-4)
    (step,) = result.iterations
    assert step == int(np.argmin(errors)) + 1
    (same := ridge(alpha=float(ALPHAS[step - 1]))).fit(train, None)
    assert chosen.predict(held_out).tobytes() == same.predict(held_out).tobytes()


def test_a_refit_takes_the_penalty_that_was_found() -> None:
    train, held_out = windows(0, TARGETS), windows(1, TARGETS)
    (model := ridge(alpha=None)).fit(train, None, FitOptions(iterations=(5,)))
    (same := ridge(alpha=float(ALPHAS[4]))).fit(train, None)
    assert model.predict(held_out).tobytes() == same.predict(held_out).tobytes()


def test_nothing_to_choose_the_penalty_on_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha is null, which chooses it on validation samples, but there are none"):
        ridge(alpha=None).fit(windows(0, TARGETS), None)
